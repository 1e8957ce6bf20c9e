// The known words as buttons: a toy, a colour or a thing to wear goes into the prompt by a press,
// in the place of one of its kind; pressed again, it is taken out.

const escaped = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
const found = (text, word) => text.match(new RegExp(`(^|[^\\w])(${escaped(word)})(?![\\w])`, "i"));
const article = (word) => (/^[aeiou]/i.test(word) ? "an" : "a");

function without(text, kind, word) {
  const before = { colours: "", toys: "(\\ban? )?" }[kind] ?? "( ?\\bwearing)?( ?\\ban?)?( \\w+(?= ))? ?";
  return text.replace(new RegExp(`${before}\\b${escaped(word)}\\b ?`, "i"), "").trim();
}

function put(text, kind, word, groups) {
  const [toys, colours] = [groups.toys ?? [], groups.colours ?? []];
  const old = groups[kind].find((other) => found(text, other));
  if (old) return text.replace(found(text, old)[0], (all) => all.slice(0, -old.length) + word);
  if (kind === "toys") return `${text.trim()} ${article(word)} ${word}`.trim();
  const toy = toys.find((other) => found(text, other));
  if (kind !== "colours") return `${text.trim()} ${text.trim() ? "wearing " : ""}${article(word)} ${word}`.trim();
  if (!toy) return `${text.trim()} ${word}`.trim();
  return text.replace(found(text, toy)[0], (all) => `${all.slice(0, -toy.length)}${word} ${toy}`);
}

// "a orange cat" becomes "an orange cat".
const spelled = (text) => text.replace(/\b(an?) (?=(\w))/gi, (all, old, next) => `${/[aeiou]/i.test(next) ? "an" : "a"} `);

// Builds the buttons; returns what to call when the prompt has changed.
export function words(parent, prompt, groups, make) {
  const buttons = [];
  const refresh = () => {
    for (const [button, word] of buttons) button.setAttribute("aria-pressed", Boolean(found(prompt.value, word)));
  };
  for (const [kind, names] of Object.entries(groups)) {
    const group = make("fieldset", parent, { className: "group" });
    make("legend", group, { textContent: kind });
    const row = make("div", group);
    for (const word of names) {
      const button = make("button", row, { type: "button", textContent: word }, ["aria-pressed", "false"]);
      button.onclick = () => {
        const change = found(prompt.value, word) ? without : put;
        prompt.value = spelled(change(prompt.value, kind, word, groups));
        prompt.dispatchEvent(new Event("input", { bubbles: true }));
      };
      buttons.push([button, word]);
    }
  }
  return refresh;
}
