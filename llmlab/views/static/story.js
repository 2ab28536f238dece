/**
 * What a view draws: the records of a run, step by step, and the KV cache after any of them.
 *
 * Records come from llmlab/views/story.py, which says what each field is; figures and sentences are made there. This
 * file must not draw, and computes no figure: it only rebuilds who holds what.
 */

const KEY_EVERY = 128; // steps between two states that are kept
export const PREFILL = 0, DECODE = 1, RECOMPUTE = 2;

export class Story {
  constructor(head) {
    this.head = head;
    this.requests = [];
    this.steps = [];
    this._keys = []; // states before steps 0, KEY_EVERY, 2 * KEY_EVERY, ...
    this._last = head.kind === "cells" ? new Cells(head) : new Blocks(head);
    this._at = -1; // the step after which _last is the state
    if (head.start) this._last.step({ kv: head.start, r: head.start.r ?? [], pre: [], fin: [] });
  }

  get length() {
    return this.steps.length;
  }

  addRequests(requests) {
    this.requests.push(...requests);
  }

  addSteps(steps) {
    this.steps.push(...steps);
  }

  /** Shares of a step: [request, phase, tokens, computed before], those that go on decoding included. */
  rows(i) {
    return this.stateAt(i).rows;
  }

  /** The KV cache at the end of step i. Do not change it. */
  stateAt(i) {
    if (i === this._at) return this._last;
    const from = Math.floor(Math.max(0, i) / KEY_EVERY);
    if (i < this._at || (this._keys[from] && from * KEY_EVERY > this._at + 1)) {
      this._last = this._keys[from].copy();
      this._at = from * KEY_EVERY - 1;
    }
    while (this._at < i) {
      const next = this._at + 1;
      if (next % KEY_EVERY === 0) this._keys[next / KEY_EVERY] ??= this._last.copy();
      this._last.step(this.steps[next]);
      this._at = next;
    }
    return this._last;
  }
}

/** What both kinds of cache have: how many tokens each request has computed, and the rows of the step. */
class Memory {
  constructor() {
    this.tokens = new Map(); // request -> tokens whose KV exists
    this.rows = []; // of the step that this is the end of
  }

  step(step) {
    const rows = [];
    for (let k = 0; k < (step.d ?? []).length; k += 2) {
      for (let r = step.d[k]; r < step.d[k] + step.d[k + 1]; r++) rows.push([r, DECODE, 1, this.tokens.get(r) ?? 0]);
    }
    for (const row of step.r) rows.push(row);
    rows.sort((a, b) => a[0] - b[0]);
    for (const [r] of step.pre) this.tokens.delete(r);
    for (const [r, , n, computed] of rows) this.tokens.set(r, computed + n);
    this.rows = rows;
    if (step.kv) this.change(step.kv);
    for (const [r] of step.fin) this.tokens.delete(r);
  }

  copyTo(other) {
    other.tokens = new Map(this.tokens);
    other.rows = this.rows;
    return other;
  }
}

/** Paged: block tables, reference counts, hashes. Block ids are those of the engine. */
export class Blocks extends Memory {
  constructor(head) {
    super();
    this.head = head;
    const size = (head.num_blocks ?? 0) + (head.first_block ?? 0);
    this.refs = new Uint16Array(size); // block -> tables that hold it
    this.cached = new Uint8Array(size); // block -> has a hash
    this.owner = new Int32Array(size).fill(-1); // block -> one request that holds it
    this.tables = new Map(); // request -> blocks in logical order
    this.nextOut = []; // head of the free queue
    this.fresh = new Set(); // handed out in this step
    this.evicted = new Set(); // lost their hash in this step
  }

  change(kv) {
    for (const [r, blocks] of kv.f ?? []) {
      const gone = new Set(blocks);
      const left = (this.tables.get(r) ?? []).filter((b) => !gone.has(b));
      left.length ? this.tables.set(r, left) : this.tables.delete(r);
      for (const b of blocks) this._release(b, r);
    }
    for (const b of kv.e ?? []) this.cached[b] = 0;
    this.evicted = new Set(kv.e ?? []);
    this.fresh = new Set();
    for (const [r, blocks] of kv.a ?? []) {
      this.tables.set(r, [...(this.tables.get(r) ?? []), ...blocks]);
      for (const b of blocks) {
        if (this.refs[b]++ === 0) {
          this.owner[b] = r;
          this.fresh.add(b);
        }
      }
    }
    for (const b of kv.c ?? []) this.cached[b] = 1;
    this.nextOut = kv.h ?? [];
  }

  _release(block, request) {
    this.refs[block] = Math.max(0, this.refs[block] - 1);
    const wasOwner = this.owner[block] === request;
    if (wasOwner || this.refs[block] === 0) this.owner[block] = -1; // holders() must not ask the table that let go
    if (wasOwner && this.refs[block]) this.owner[block] = this.holders(block)[0]?.[0] ?? -1;
  }

  step(step) {
    this.fresh = new Set();
    this.evicted = new Set();
    super.step(step);
  }

  /** [[request, logical index]], in order of the requests. */
  holders(block) {
    if (this.refs[block] === 1 && this.owner[block] >= 0) {
      return [[this.owner[block], this.tables.get(this.owner[block]).indexOf(block)]];
    }
    const found = [];
    for (const [r, table] of this.tables) {
      const logical = table.indexOf(block);
      if (logical >= 0) found.push([r, logical]);
    }
    return found.sort((a, b) => a[0] - b[0]);
  }

  /** Tokens written in a block, 0 to block_size: of the holder that wrote most. */
  fill(block) {
    const size = this.head.block_size;
    const of = ([r, logical]) => Math.max(0, Math.min(size, (this.tokens.get(r) ?? 0) - logical * size));
    return Math.max(0, ...this.holders(block).map(of));
  }

  copy() {
    const other = this.copyTo(new Blocks({ ...this.head, num_blocks: 0, first_block: 0 }));
    other.head = this.head;
    other.refs = this.refs.slice();
    other.cached = this.cached.slice();
    other.owner = this.owner.slice();
    other.tables = new Map(this.tables); // tables are replaced, never changed
    other.nextOut = this.nextOut;
    other.fresh = this.fresh;
    other.evicted = this.evicted;
    return other;
  }
}

/** llama.cpp: a cell holds the KV of one token, for one or more sequences. */
export class Cells extends Memory {
  constructor(head) {
    super();
    this.head = head;
    this.position = new Int32Array(head.num_cells ?? 0).fill(-1); // -1: empty
    this.holders = new Array(head.num_cells ?? 0).fill(null); // cell -> requests, ascending, or null
    this.attended = 0;
    this.ringHead = null;
    this.written = new Set(); // in this step
  }

  step(step) {
    this.written = new Set();
    super.step(step);
  }

  change(kv) {
    const emptied = [];
    for (const [r, first, n] of kv.f ?? []) {
      for (let c = first; c < first + n; c++) {
        this.holders[c] = (this.holders[c] ?? []).filter((x) => x !== r);
        emptied.push(c);
      }
    }
    const later = []; // a cell may be shared in the delta that writes it
    for (const run of kv.s ?? []) this.position[run[1]] < 0 ? later.push(run) : this._share(run);
    for (const c of emptied) {
      if (this.holders[c] && !this.holders[c].length) {
        this.holders[c] = null;
        this.position[c] = -1;
      }
    }
    this.written = new Set();
    for (const [r, first, position, n] of kv.w ?? []) {
      for (let c = first; c < first + n; c++) {
        this.position[c] = position + c - first;
        this._hold(c, r);
        this.written.add(c);
      }
    }
    for (const run of later) this._share(run);
    this.attended = kv.att;
    this.ringHead = kv.head ?? null;
  }

  _share([r, first, n]) {
    for (let c = first; c < first + n; c++) this._hold(c, r);
  }

  _hold(cell, request) {
    const now = this.holders[cell] ?? [];
    if (!now.includes(request)) this.holders[cell] = [...now, request].sort((a, b) => a - b);
  }

  copy() {
    const other = this.copyTo(new Cells({ num_cells: 0 }));
    other.head = this.head;
    other.position = this.position.slice();
    other.holders = this.holders.slice(); // lists are replaced, never changed
    other.attended = this.attended;
    other.ringHead = this.ringHead;
    other.written = this.written;
    return other;
  }
}
