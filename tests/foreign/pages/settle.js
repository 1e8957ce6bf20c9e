// Draws until workers have sorted: until something is seen, and it stands still for two seconds.
export async function settle(canvas, draw) {
  draw();
  const empty = canvas.toDataURL();
  for (let before = empty, still = 0; still < 20; ) {
    await new Promise((done) => setTimeout(done, 100));
    draw();
    const now = canvas.toDataURL();
    still = now === before && now !== empty ? still + 1 : 0;
    before = now;
  }
}
