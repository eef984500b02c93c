// The left side of the page of `hundredfold teach`: records with the webcam, and classifies what it sees.
// It is loaded before teach.js, whose `state`, `change` and `showError` it uses.
"use strict";

const recordEvery = 150; // milliseconds between two pictures while a button is held
const classifyEvery = 100; // milliseconds between two pictures that are classified
const retryAfter = 3000; // milliseconds until the next picture is classified after an error
const side = 448; // pixels of a picture of the webcam, which is cropped to a square

let stream = null; // of the webcam
let webcamWanted = false; // also true while the browser asks for permission
let recording = ""; // class whose button is held
let tested = null; // the picture file that is shown
let model; // run of the model that the server uses

// Webcam

/** Turn the webcam on or off. */
async function toggleWebcam() {
  if (stream) return closeWebcam();
  await openWebcam();
}

/** Turn the webcam on; return whether it is on. */
async function openWebcam() {
  if (stream) return true;
  if (webcamWanted) return false;
  webcamWanted = true;
  try {
    stream = await webcamStream();
    byId("video").srcObject = stream;
    await byId("video").play();
    stream.getVideoTracks()[0].addEventListener("ended", closeWebcam);
  } catch (error) {
    closeWebcam();
    showError(`The webcam cannot be used: ${error.message}.`);
    return false;
  } finally {
    webcamWanted = false;
  }
  tested = null;
  show(true, "video");
  show(false, "tested");
  byId("answer").ariaLive = "off";
  byId("webcam").textContent = "Turn the webcam off";
  classifyLive();
  return true;
}

/** Turn the webcam off. */
function closeWebcam() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = byId("video").srcObject = null;
  show(false, "video");
  byId("webcam").textContent = "Use the webcam";
  byId("answer").replaceChildren();
  show(false, "foreign");
}

/** Return what the webcam sees: the content of a JPEG file, or null. */
function takePicture() {
  const video = byId("video");
  const short = Math.min(video.videoWidth, video.videoHeight);
  const canvas = element("canvas", { width: side, height: side });
  const [left, top] = [(video.videoWidth - short) / 2, (video.videoHeight - short) / 2];
  canvas.getContext("2d").drawImage(video, left, top, short, short, 0, 0, side, side);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
}

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Add pictures to a class as long as its button is held. */
async function record(label) {
  recording = label;
  const burst = String(Date.now());
  let last = "";
  if (!(await openWebcam())) recording = "";
  while (recording === label && stream) {
    const next = pause(recordEvery);
    const picture = await takePicture();
    const content = (await picture?.text()) ?? last;
    const name = `webcam-${new Date().toISOString().replace(/\D/g, "")}`;
    if (content !== last && !(await change("/api/pictures", { label, name, burst }, picture))) break;
    last = content; // in dim light, webcams show the same picture for longer
    await next;
  }
}

/** Make a button record while it is held by a pointer, or by the space bar or the enter key. */
function holdable(button, label) {
  const isKey = (event) => event.key === " " || event.key === "Enter";
  const stop = () => (recording = "");
  button.addEventListener("pointerdown", (event) => {
    button.setPointerCapture(event.pointerId);
    record(label);
  });
  button.addEventListener("keydown", (event) => {
    if (!isKey(event)) return;
    event.preventDefault();
    if (!event.repeat) record(label);
  });
  button.addEventListener("keyup", (event) => isKey(event) && stop());
  for (const end of ["pointerup", "pointercancel", "blur"]) button.addEventListener(end, stop);
  button.addEventListener("contextmenu", (event) => event.preventDefault()); // a long press on a phone
}

// Answers

/** Show an answer. */
function showAnswer(answer) {
  byId("answer").replaceChildren(...answer.classes.slice(0, 5).map(scoreItem));
  byId("foreign").textContent = foreignSentence(answer);
  show(Boolean(foreignSentence(answer)), "foreign");
}

/** Classify what the webcam sees, until it is turned off. */
async function classifyLive() {
  const own = stream;
  while (stream === own && own) {
    const next = pause(classifyEvery);
    if (state?.model && !recording && !document.hidden) {
      try {
        const answer = await send("/api/predict", await takePicture());
        if (stream === own) showAnswer(answer);
      } catch (error) {
        showError(error.message);
        await pause(retryAfter);
      }
    }
    await next;
  }
}

/** Classify a picture file. */
async function classifyFile(file) {
  closeWebcam();
  URL.revokeObjectURL(byId("tested").src);
  byId("tested").src = URL.createObjectURL(file);
  show(true, "tested");
  byId("answer").ariaLive = "polite"; // a webcam's answers change too often to be read out
  tested = file;
  try {
    const answer = await send("/api/predict", file);
    if (tested !== file) return;
    showAnswer(answer);
    showError("");
  } catch (error) {
    if (tested === file) showError(error.message);
  }
}

/** Notice which model the server uses; a new one classifies the picture file again. */
function useModel(run) {
  const isOther = run !== model;
  model = run;
  if (isOther && tested) classifyFile(tested);
}
