/** A saved page: the story stands in it. */

import { Clock } from "./clock.js";
import { Story } from "./story.js";
import { show } from "./view.js";

const data = JSON.parse(document.getElementById("llmlab-data").textContent);
const story = new Story(data.head);
story.addRequests(data.requests);
story.addSteps(data.steps);
const clock = new Clock(story.length);
const asked = new URLSearchParams(location.search); // ?step=26&request=3
if (asked.has("step")) clock.set(Number(asked.get("step")));
if (asked.has("request")) clock.selected = Number(asked.get("request"));
show(document.getElementById("llmlab-root"), story, clock, data.options);
globalThis.llmlabStory = story;
globalThis.llmlabClock = clock;
