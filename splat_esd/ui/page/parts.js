// What the page is made of: elements, questions to the server, pictures, sizes.

// Text is only ever set as text: a prompt is no HTML.
export function make(tag, parent, properties = {}, ...attributes) {
  const element = Object.assign(document.createElement(tag), properties);
  for (const [name, value] of attributes) element.setAttribute(name, value);
  parent?.append(element);
  return element;
}

// A problem is an answer too, and so is that nobody answers.
export async function ask(address, wish) {
  const post = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(wish) };
  try {
    return await (await fetch(address, wish && post)).json();
  } catch {
    return { problem: "the program does not answer." };
  }
}

// A square of a picture on a canvas: the first frame of a turntable, or a tile of a preview, whose
// rows are colour, depth, alpha, colour, depth, alpha.
export function square(canvas, address, is_preview, tile = [0, 0], place = [0, 0, 1]) {
  const image = new Image(), [x, y, share] = place;
  image.onload = () => {
    const side = is_preview ? image.width / 6 : image.width;
    const from = [tile[0] * side + 1, (tile[1] * image.height) / 2 + 1];  // a tile's edge takes from the next
    const [left, top, wide] = [x * canvas.width, y * canvas.height, share * canvas.width];
    canvas.getContext("2d").drawImage(image, ...from, side - 2, side - 2, left, top, wide, wide);
  };
  image.src = address;
}

// Words in the middle of a canvas that has nothing to show.
export function write(canvas, words) {
  const pen = canvas.getContext("2d");
  Object.assign(pen, { fillStyle: "#444", font: "20px sans-serif", textAlign: "center" });
  pen.fillText(words, canvas.width / 2, canvas.height / 2);
}

// How a run stands, where the word on the page is another.
export const STATUS = { new: "not started" };

export function size(bytes) {
  return bytes < 1e6 ? `${Math.max(1, Math.round(bytes / 1e3))} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}
