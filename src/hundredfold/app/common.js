// What all pages use: elements, requests to the server, and the bars of an answer.
"use strict";

const mostBytes = Number(document.currentScript.dataset.mostBytes);
const foreign = Number(document.currentScript.dataset.foreign); // `known` below which it is none of the classes

const byId = (id) => document.getElementById(id);

/** Return a new element. */
function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** Show or hide elements. */
function show(visible, ...ids) {
  for (const id of ids) byId(id).hidden = !visible;
}

const percent = (probability) => `${(100 * probability).toFixed(1)}%`;

/** Send a file, if there is one; return the server's answer, or throw an Error that says what is wrong. */
async function send(address, file, signal) {
  if (file?.size > mostBytes) throw new Error(`A picture may have at most ${mostBytes >> 20} MiB.`);
  const request = { method: "POST", body: file, signal };
  const response = await fetch(address, request).catch((error) => {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer, or the file is gone. Is the server still running?");
  });
  const answer = await response.json().catch(() => null);
  if (response.ok && answer) return answer;
  const reason = response.ok ? "The answer was cut off" : `The server is busy (status ${response.status})`;
  throw new Error(answer?.error ?? `${reason}. Try again.`);
}

/** Return the list item of a class: name, probability, bar. */
function scoreItem({ name, probability }) {
  const fill = element("span");
  fill.style.width = percent(probability);
  return element(
    "li",
    {},
    element("span", { textContent: name }),
    element("span", { className: "share", textContent: percent(probability) }),
    element("div", { className: "bar" }, fill),
  );
}

/** Return a sentence if an answer says that a picture shows none of the classes, or an empty text. */
function foreignSentence({ classes, known }) {
  if (known === undefined || known >= foreign) return "";
  return (
    "This picture probably shows none of the model's classes. " +
    `The nearest class is ${classes[0].name}. Among pictures like the training pictures, ` +
    `only ${percent(known)} look as unfamiliar as this one.`
  );
}

/** Return the stream of the webcam, or throw an Error whose message follows "The webcam cannot be used: ". */
async function webcamStream() {
  if (!navigator.mediaDevices) throw new Error("the browser allows it only on localhost or over https");
  return navigator.mediaDevices.getUserMedia({ video: true });
}
