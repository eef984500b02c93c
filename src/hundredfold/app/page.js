// The page of `hundredfold app`: sends pictures to /api/explain and /api/predict, shows the answers.
"use strict";

const settings = document.currentScript.dataset;
const mostFiles = Number(settings.mostFiles);
const hasSuperclasses = Boolean(settings.superclasses);
const smallPicture = 128; // pixels; smaller pictures are enlarged as squares, without blur

// One picture

let current = new AbortController(); // of the picture that is shown

/** Classify a picture, show the answer, then the reasons; the previous ones stay, but pale. */
async function classify(file) {
  const signal = startOver();
  byId("picture").src = URL.createObjectURL(file);
  show(true, "picture", "clear");
  show(false, "invitation", "error");
  setBusy(true);
  let answered = false;
  try {
    showClasses(await send("/api/predict", file, signal));
    answered = true;
    byId("status").textContent = "Explaining …";
    showReasons(await send("/api/explain", file, signal));
  } catch (error) {
    if (!signal.aborted) {
      showError(error.message);
      show(answered, "answer");
    }
  }
  if (!signal.aborted) setBusy(false);
}

/** Load an example and classify it. */
async function classifyExample(address) {
  const signal = startOver();
  const response = await fetch(address, { signal }).catch(() => null);
  const file = response?.ok ? await response.blob().catch(() => null) : null;
  if (signal.aborted) return;
  if (file) {
    await classify(file);
    byId("answer").scrollIntoView({ block: "nearest" });
  } else {
    clear();
    showError("The example cannot be loaded. Is the server still running?");
  }
}

/** Abandon the current picture; return the signal of the next one. */
function startOver() {
  current.abort();
  current = new AbortController();
  closeWebcam();
  URL.revokeObjectURL(byId("picture").src);
  return current.signal;
}

/** Remove the picture and its answer. */
function clear() {
  const signal = startOver();
  byId("picture").removeAttribute("src");
  show(true, "invitation", "hint");
  show(false, "picture", "clear", "error", "answer", "reasons");
  setBusy(false);
  return signal;
}

/** Show whether an answer is on its way. */
function setBusy(busy) {
  byId("one").setAttribute("aria-busy", busy);
  byId("status").textContent = busy ? "Classifying …" : "";
}

/** Show a sentence in place of an answer. */
function showError(sentence) {
  byId("error").textContent = sentence;
  show(true, "error");
  show(false, "answer", "reasons", "hint");
}

/** Show an answer of /api/predict. */
function showClasses(answer) {
  byId("classes").replaceChildren(...answer.classes.map(scoreItem));
  if (hasSuperclasses) byId("superclasses").replaceChildren(...answer.superclasses.map(scoreItem));
  byId("first-class").textContent = answer.classes[0].name;
  byId("foreign").textContent = foreignSentence(answer);
  show(Boolean(foreignSentence(answer)), "foreign");
  show(true, "answer");
  show(false, "hint");
}

/** Show the reasons in an answer of /api/explain. */
function showReasons(answer) {
  byId("heat-map").src = byId("download").href = answer.heat_map;
  byId("similar").replaceChildren(...(answer.similar ?? []).map(similarFigure));
  show(true, "reasons");
  show(Boolean(answer.similar), "similar-card");
}

/** Return a training picture with its caption. */
function similarFigure({ picture, caption }) {
  const image = element("img", { src: picture, alt: "", onload: sharpenIfSmall });
  return element("figure", {}, image, element("figcaption", { textContent: caption }));
}

/** Show the pixels of a small picture. */
function sharpenIfSmall(event) {
  event.target.classList.toggle("pixels", event.target.naturalWidth < smallPicture);
}

// Webcam

let webcamRequested = false; // also true while the browser asks for permission

/** Show what the webcam sees. */
async function openWebcam() {
  const signal = clear();
  webcamRequested = true;
  try {
    const opened = await webcamStream();
    if (signal.aborted) return opened.getTracks().forEach((track) => track.stop());
    byId("video").srcObject = opened;
    await byId("video").play();
  } catch (error) {
    if (signal.aborted) return;
    closeWebcam();
    return showError(`The webcam cannot be used: ${error.message}.`);
  }
  if (signal.aborted) return;
  show(true, "video", "take", "cancel");
  show(false, "webcam");
  document.querySelector("#one .drop").hidden = true;
  byId("take").focus();
}

/** Take a picture and classify it. */
function takePicture() {
  const { signal } = current;
  const video = byId("video");
  const canvas = element("canvas", { width: video.videoWidth, height: video.videoHeight });
  canvas.getContext("2d").drawImage(video, 0, 0);
  canvas.toBlob((file) => {
    if (signal.aborted) return;
    if (file) classify(file);
    else showError("The webcam sent no picture. Try again.");
  }, "image/png");
}

/** Turn the webcam off. */
function closeWebcam() {
  byId("video").srcObject?.getTracks().forEach((track) => track.stop());
  byId("video").srcObject = null;
  webcamRequested = false;
  show(false, "video", "take", "cancel");
  show(true, "webcam");
  document.querySelector("#one .drop").hidden = false;
}

// Several pictures

let currentFiles = new AbortController(); // of the files in the table

/** Classify pictures one after the other, a row of the table each. */
async function classifySeveral(files) {
  currentFiles.abort();
  currentFiles = new AbortController();
  const { signal } = currentFiles;
  const rows = byId("table").tBodies[0];
  const chosen = files.slice(0, mostFiles);
  rows.replaceChildren();
  show(true, "table");
  for (const [index, file] of chosen.entries()) {
    byId("progress").textContent = `Classifying ${index + 1} of ${chosen.length} …`;
    const row = await rowOf(file, signal);
    if (signal.aborted) return;
    rows.append(row);
  }
  const left = files.length - chosen.length;
  byId("progress").textContent =
    `${chosen.length} of ${files.length} pictures done.` +
    (left ? ` The other ${left} were left out: choose at most ${mostFiles} at once.` : "");
}

/** Classify a picture; return its row of the table, with the answer or with the error in words. */
async function rowOf(file, signal) {
  const name = element("td", { textContent: file.name });
  try {
    const { classes, superclasses, known } = await send("/api/predict?top=1", file, signal);
    if (known < foreign) classes[0].name = `none of these (nearest: ${classes[0].name})`;
    const best = hasSuperclasses ? [classes[0], superclasses[0]] : [classes[0]];
    return element("tr", {}, name, ...best.flatMap(scoreCells));
  } catch (error) {
    const words = element("div", { className: "error", textContent: error.message });
    return element("tr", {}, name, element("td", { colSpan: hasSuperclasses ? 4 : 2 }, words));
  }
}

/** Return the two cells of a class in the table. */
function scoreCells({ name, probability }) {
  return [
    element("td", { textContent: name }),
    element("td", { textContent: percent(probability), className: "n" }),
  ];
}

// The page

const tabs = [...document.querySelectorAll("[role=tab]")];

/** Show a tab's panel and hide the other. */
function selectTab(tab) {
  for (const each of tabs) {
    each.setAttribute("aria-selected", each === tab);
    each.tabIndex = each === tab ? 0 : -1;
    show(each === tab, each.getAttribute("aria-controls"));
  }
  if (webcamRequested) clear();
}

/** Classify files that were chosen, dropped or pasted. */
function receive(files) {
  if (!files.length) return;
  if (files.length > 1) selectTab(byId("several-tab"));
  if (byId("several").hidden) classify(files[0]);
  else classifySeveral(files);
}

for (const tab of tabs) {
  tab.addEventListener("click", () => selectTab(tab));
  tab.addEventListener("keydown", ({ key }) => {
    if (key !== "ArrowLeft" && key !== "ArrowRight") return;
    const other = tabs.find((each) => each !== tab);
    selectTab(other);
    other.focus();
  });
}
for (const input of [byId("file"), byId("files")]) {
  input.addEventListener("change", () => {
    const files = [...input.files];
    input.value = ""; // so that the same file can be chosen again
    receive(files);
  });
}
for (const button of document.querySelectorAll("#examples button")) {
  const image = button.querySelector("img");
  if (image.complete) sharpenIfSmall({ target: image });
  image.addEventListener("load", sharpenIfSmall);
  button.addEventListener("click", () => classifyExample(image.src));
}
byId("picture").addEventListener("load", sharpenIfSmall);
byId("picture").addEventListener("error", () => {
  show(false, "picture"); // a format that the browser does not show
  show(true, "invitation");
});
byId("webcam").addEventListener("click", openWebcam);
byId("take").addEventListener("click", takePicture);
byId("cancel").addEventListener("click", clear);
byId("clear").addEventListener("click", () => {
  clear();
  byId("file").focus();
});
document.addEventListener("paste", (event) => receive([...event.clipboardData.files]));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", () => document.body.classList.remove("dragging"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  receive([...event.dataTransfer.files]);
});
