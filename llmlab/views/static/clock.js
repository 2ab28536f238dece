/** The cursor that linked views share: one step of the story. This file must not draw. */

export class Clock {
  /** `n` steps exist; `following`: new steps move the cursor to the end. */
  constructor(n = 0, { following = false } = {}) {
    this.n = n;
    this.i = Math.max(0, n - 1);
    this.following = following;
    this.isLive = following; // steps still come
    this.speed = 1;
    this.selected = null; // request index
    this._listeners = new Set();
    this._timer = null;
  }

  /** Call f() now, and whenever the cursor, the selection or the number of steps changes. Returns what ends that. */
  on(f) {
    this._listeners.add(f);
    f();
    return () => this._listeners.delete(f);
  }

  changed() {
    for (const f of [...this._listeners]) f();
  }

  /** Move the cursor. A user who moves it to the last step of a live story follows it again. */
  set(i) {
    const at = Math.max(0, Math.min(this.n - 1, Math.trunc(i)));
    this.following = this.isLive && at === this.n - 1;
    if (at === this.i) return;
    this.i = at;
    this.changed();
  }

  /** Steps have come. */
  grow(n) {
    if (n === this.n) return;
    this.n = n;
    if (this.following) this.i = Math.max(0, n - 1);
    this.changed();
  }

  select(request) {
    this.selected = this.selected === request ? null : request;
    this.changed();
  }

  get isPlaying() {
    return this._timer !== null;
  }

  /** Play from here, 8 steps a second times `speed`; from the beginning when the cursor is at the end. */
  play() {
    if (this.isPlaying) return;
    if (this.i >= this.n - 1 && !this.isLive) this.i = 0;
    this._timer = setInterval(() => (this.i < this.n - 1 ? this.set(this.i + 1) : this.pause()), 125 / this.speed);
    this.changed();
  }

  pause() {
    clearInterval(this._timer);
    this._timer = null;
    this.changed();
  }

  setSpeed(speed) {
    this.speed = speed;
    if (this.isPlaying) {
      clearInterval(this._timer);
      this._timer = null;
      this.play();
    }
  }
}

const clocks = (globalThis.llmlabClocks ??= new Map());

/** The clock of a story: views of one run have one, whatever cell they stand in. */
export function clockOf(storyId, n, options) {
  if (!clocks.has(storyId)) clocks.set(storyId, new Clock(n, options));
  const clock = clocks.get(storyId);
  if (n > clock.n) clock.grow(n);
  return clock;
}
