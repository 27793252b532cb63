"use strict";

const form = document.getElementById("form");
const preset = document.getElementById("preset");
const work = document.getElementById("work");

function show() {
  for (const fields of form.querySelectorAll("fieldset")) {
    fields.hidden = fields.disabled = fields.dataset.preset !== preset.value;
  }
}

function showCosts(costs) {
  const month = costs.cap ? `${costs.month} of ${costs.cap}` : costs.month;
  document.getElementById("costs").textContent = `today ${costs.today}, this month ${month}`;
}

function card() {
  const box = document.createElement("figure");
  const text = document.createElement("figcaption");
  const began = Date.now();
  let stage = "sending";
  const tick = () => {
    text.textContent = `${stage} (${Math.round((Date.now() - began) / 1000)} s)`;
  };
  const clock = setInterval(tick, 1000);
  const end = () => clearInterval(clock);
  box.append(text);
  work.prepend(box);
  tick();
  const setStage = (words) => { stage = words; tick(); };
  const fail = (words) => { end(); box.className = "failed"; text.textContent = words; };
  const done = (line) => {
    const image = document.createElement("img");
    image.width = line.width;
    image.height = line.height;
    image.alt = "the picture";
    image.onerror = () => fail("The picture cannot be loaded.");
    image.onload = () => {
      end();
      text.textContent = `this picture: ${line.cost}`;
      box.className = "done";
      box.prepend(image);
    };
    image.src = `/pictures/${encodeURIComponent(line.picture)}`;
  };
  return { stage: setStage, fail, done };
}

function take(line, to) {
  if (line.costs) showCosts(line.costs);
  if (line.error) to.fail(line.error);
  else if (line.picture) to.done(line);
  else if (line.stage) to.stage(line.stage);
  return Boolean(line.error || line.picture);
}

async function follow(response, to) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let over = false;
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) over = take(JSON.parse(line), to) || over;
  }
  if (!over) to.fail("The connection broke. The picture may still be paid for.");
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const to = card();
  try {
    const response = await fetch("/pictures", {
      method: "POST",
      body: new FormData(form),
      headers: { "X-Image-App": "1" },
    });
    if (response.ok) await follow(response, to);
    else to.fail((await response.json()).error);
  } catch (error) {
    to.fail("The app cannot be reached.");
  }
});

preset.addEventListener("change", show);
show();
fetch("/costs").then((response) => response.json()).then(showCosts);
