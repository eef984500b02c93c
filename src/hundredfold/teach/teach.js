// The page of `hundredfold teach`: collects pictures of classes, and has the server train. live.js has the webcam.
"use strict";

const askSoon = 500; // milliseconds until the state is asked for again while something is going on
const askLater = 3000; // the same while nothing is going on: another program may change the folder
const fewPictures = 2; // classes with pictures that a model needs

const cards = new Map(); // class to its elements
let state = null; // last answer of the server

/** Show an error, or remove it. */
function showError(sentence) {
  byId("error").textContent = sentence;
  show(Boolean(sentence), "error");
}

/** Show what is wrong with the folder or the training until that changes. A text that stays is not announced again. */
function showProblems(sentences) {
  if (byId("problems").textContent !== sentences) byId("problems").textContent = sentences;
}

/** Return an address with parameters. */
const address = (path, parameters) => `${path}?${new URLSearchParams(parameters)}`;

/** Ask the server for a change and show the new state; return why it was refused, or an empty text. */
async function attempt(path, parameters = {}, file = undefined) {
  try {
    showState(await send(address(path, parameters), file));
    return "";
  } catch (error) {
    return error.message;
  }
}

/** Ask the server for a change and show what came of it; return whether it was done. */
async function change(path, parameters = {}, file = undefined) {
  const refusal = await attempt(path, parameters, file);
  showError(refusal);
  return !refusal;
}

// The state

/** Ask for the state, show it, and do so again later. */
async function watchState() {
  const response = await fetch("/api/state").catch(() => null);
  const answer = await response?.json().catch(() => null);
  if (response?.ok && answer) showState(answer);
  else {
    showProblems(answer?.error ?? "The server does not answer. Is it still running?");
    state = null;
  }
  const busy = state && (state.is_training || state.waiting || !state.is_checked);
  setTimeout(watchState, busy ? askSoon : askLater);
}

/** Show a state of the server. */
function showState(next) {
  state = next;
  byId("folder").textContent = next.folder;
  const names = next.classes.map((each) => each.name);
  for (const [name, card] of cards) {
    if (names.includes(name)) continue;
    card.element.remove();
    cards.delete(name);
  }
  for (const each of next.classes) {
    if (!cards.has(each.name)) cards.set(each.name, makeCard(each.name));
    showClass(cards.get(each.name), each, names);
  }
  const order = names.map((name) => cards.get(name).element);
  if (order.some((card, place) => byId("classes").children[place] !== card)) byId("classes").append(...order);
  show(!names.length, "hint");
  showUndo(next.undo);
  showModel(next);
}

function showUndo(what) {
  byId("undo").disabled = !what;
  byId("undo").textContent = what ? `Undo ${what}` : "Undo";
}

/** Show the accuracy to be expected, the training and the model. */
function showModel({ classes, waiting, unusable, accuracy, interval, judged, is_training, error, model }) {
  const filled = classes.filter((each) => each.pictures.length).length;
  byId("train").disabled = is_training || filled < fewPictures;
  byId("train").textContent = is_training ? "Training …" : model ? "Train again" : "Train";
  byId("status").textContent = is_training
    ? "The model is being trained."
    : waiting
      ? `Looking at ${waiting} new pictures …`
      : filled < fewPictures
        ? "To train a model, add pictures to at least two classes."
        : "";
  byId("accuracy").textContent =
    accuracy === null
      ? ""
      : `Of ${judged} pictures, ${percent(accuracy)} are recognised by a model that has not seen them ` +
        `(95% interval: ${percent(interval[0])} to ${percent(interval[1])}). Near duplicates count as one picture.`;
  showProblems([error, ...unusable].filter(Boolean).join(" "));
  show(Boolean(model), "model");
  byId("run").textContent = model?.run ?? "";
  show(Boolean(model) && !model.is_current, "outdated");
  useModel(model?.run);
}

// Classes

/** Return the elements of a class. */
function makeCard(label) {
  const name = element("input", { value: label, ariaLabel: "Name of the class", maxLength: 60 });
  name.addEventListener("change", async () => {
    const wanted = name.value;
    if (!(await change("/api/classes/rename", { label, name: wanted }))) name.value = label;
    else if (document.activeElement === document.body) cards.get(classOf(wanted))?.name.focus();
  });
  const record = element("button", { textContent: "Hold to record", ariaLabel: `Hold to record ${label}` });
  holdable(record, label);
  const files = element("input", { type: "file", accept: "image/*", multiple: true, className: "unseen" });
  files.addEventListener("change", () => {
    addFiles([...files.files].map((file) => ({ label, file })));
    files.value = "";
  });
  const into = element("select", { ariaLabel: `Class into which ${label} is merged` });
  const merge = element("button");
  into.addEventListener("change", () => {
    merge.hidden = !into.value;
    merge.textContent = `Merge into ${into.value}`;
    merge.ariaLabel = `Merge ${label} into ${into.value}`;
  });
  merge.addEventListener("click", () => change("/api/classes/merge", { label, into: into.value }));
  const remove = element("button", { textContent: "Delete", ariaLabel: `Delete the class ${label}` });
  remove.addEventListener("click", () => change("/api/classes/delete", { label }));
  const count = element("span", { className: "count" });
  const notes = element("ul", { className: "notes" });
  const pictures = element("ul", { className: "pictures" });
  const card = element(
    "section",
    { className: "card class", ariaLabel: label },
    element("div", { className: "head" }, name, count),
    element(
      "div",
      { className: "buttons" },
      record,
      element("label", { className: "button", textContent: "Add files" }, files),
      into,
      merge,
      remove,
    ),
    notes,
    pictures,
  );
  card.dataset.label = label;
  return { element: card, name, count, notes, into, merge, others: null, pictures, items: new Map() };
}

/** Show a class as it is now. */
function showClass(card, { name, pictures, notes }, names) {
  card.count.textContent = pictures.length === 1 ? "1 picture" : `${pictures.length} pictures`;
  card.notes.replaceChildren(...notes.map((note) => element("li", { textContent: note })));
  showOthers(
    card,
    names.filter((other) => other !== name),
  );
  for (const [picture, item] of card.items) {
    if (pictures.includes(picture)) continue;
    item.remove();
    card.items.delete(picture);
  }
  for (const picture of pictures) {
    if (card.items.has(picture)) continue;
    card.items.set(picture, pictureItem(name, picture));
    card.pictures.append(card.items.get(picture));
  }
}

/** Offer the classes that a class can be merged into. The list is made anew only if they have changed. */
function showOthers(card, others) {
  if (card.others?.join("/") === others.join("/")) return;
  card.others = others;
  card.into.replaceChildren(
    element("option", { textContent: "Merge into …", value: "" }),
    ...others.map((other) => element("option", { textContent: other, value: other })),
  );
  card.into.hidden = !others.length;
  card.merge.hidden = true;
}

/** Return a picture with the button that deletes it. */
function pictureItem(label, picture) {
  const remove = element("button", { textContent: "×", title: "Delete", ariaLabel: `Delete the picture ${picture}` });
  const image = element("img", { alt: picture, loading: "lazy", src: address("/thumbnail", { label, picture }) });
  const item = element("li", {}, image, remove);
  remove.addEventListener("click", async () => {
    const next = item.nextElementSibling ?? item.previousElementSibling;
    const done = await change("/api/pictures/delete", { label, picture });
    if (done && document.activeElement === document.body) next?.querySelector("button").focus();
  });
  return item;
}

// Files

/** Return a name as the server tidies it up. */
const tidy = (name) => name.normalize("NFC").split(/\s+/).filter(Boolean).join(" ");

/** Return the class of that name, or undefined. */
const classOf = (label) => [...cards.keys()].find((name) => tidy(name) === tidy(label));

/** Add files to classes, one after the other; classes that do not exist are created. */
async function addFiles(pairs) {
  const burst = String(Date.now());
  const problems = [];
  const found = new Map(); // label to whether there is a class for it
  for (const { label, file } of pairs) {
    if (!found.has(label)) {
      const refusal = classOf(label) ? "" : await attempt("/api/classes", { name: label });
      found.set(label, !refusal);
      if (refusal) problems.push(refusal);
    } else if (found.get(label) && !classOf(label)) {
      found.set(label, false);
      problems.push(`${label} was renamed or deleted, so its other files are not added.`);
    }
    if (!found.get(label)) continue;
    const refusal = await attempt("/api/pictures", { label: classOf(label), name: file.name, burst }, file);
    if (refusal) problems.push(`${file.name}: ${refusal}`);
  }
  showError(problems.join(" "));
}

/** Return the file type that a browser gives pictures, or no type at all. */
const mayBePicture = (file) => (!file.type || file.type.startsWith("image/")) && !file.name.startsWith(".");

/** Return the files of dropped files and folders; a file of a folder has the folder's name as its class. */
async function filesOf(entries, label) {
  const found = [];
  for (const entry of entries) {
    if (entry.isFile) {
      const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
      if (mayBePicture(file)) found.push({ label, file });
    } else if (entry.isDirectory) {
      const reader = entry.createReader();
      const read = () => new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      for (let part = await read(); part.length; part = await read())
        found.push(...(await filesOf(part, entry.name)));
    }
  }
  return found;
}

/** Add what was dropped, to the class at that place if files were dropped. */
async function receiveDrop(event) {
  event.preventDefault();
  document.body.classList.remove("dragging");
  const label = event.target.closest?.(".class")?.dataset.label ?? "";
  const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
  try {
    const pairs = await filesOf(entries, label);
    if (pairs.some((pair) => !pair.label)) showError("Drop pictures on a class, or drop folders.");
    else if (!pairs.length) showError("There are no pictures among these files.");
    else await addFiles(pairs);
  } catch (error) {
    showError(`The browser cannot read what was dropped: ${error.message}`);
  }
}

// The page

byId("new").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (await change("/api/classes", { name: byId("name").value })) byId("name").value = "";
  byId("name").focus();
});
byId("folders").addEventListener("change", () => {
  const files = [...byId("folders").files].filter(mayBePicture);
  byId("folders").value = "";
  addFiles(files.map((file) => ({ label: file.webkitRelativePath.split("/").at(-2), file })));
});
byId("test").addEventListener("change", () => {
  const [file] = byId("test").files;
  byId("test").value = "";
  if (file) classifyFile(file);
});
byId("undo").addEventListener("click", () => change("/api/undo"));
byId("train").addEventListener("click", () => change("/api/train"));
byId("webcam").addEventListener("click", toggleWebcam);
document.addEventListener("keydown", (event) => {
  const isTyping = event.target.matches?.("input:not([type=file])") && event.target.value;
  if (event.key !== "z" || !(event.ctrlKey || event.metaKey) || isTyping) return;
  event.preventDefault();
  if (state?.undo) change("/api/undo");
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", () => document.body.classList.remove("dragging"));
document.addEventListener("drop", receiveDrop);
watchState();
