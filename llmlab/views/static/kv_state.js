/**
 * The KV cache after a step, rebuilt from the records of a story one by one: see llmlab/views/story.py, and
 * llmlab/views/kv_now.py, which does the same. This file must not draw, and computes no figure.
 */

export const DECODE = 1; // of the phases of a share, as story.py numbers them

/** Call act(request) for each of [first, number, first, number, ...]. */
export function eachOfRanges(ranges, act) {
  for (let k = 0; k < (ranges?.length ?? 0); k += 2) {
    for (let r = ranges[k]; r < ranges[k] + ranges[k + 1]; r++) act(r);
  }
}

/** What both kinds of cache have: how many tokens each request has computed, and the rows of the step. */
class Memory {
  constructor() {
    this.tokens = new Map(); // request -> tokens whose KV exists
    this._ended = new Map(); // the same of those that ended in the last step
    this._step = { r: [] }; // that this is the end of
    this._rows = null;
  }

  /** Shares of the step, [request, phase, tokens, computed before]. Made when asked for: of most steps nobody asks. */
  get rows() {
    if (this._rows) return this._rows;
    const rows = [...this._step.r];
    eachOfRanges(this._step.d, (r) => rows.push([r, DECODE, 1, (this.tokens.get(r) ?? this._ended.get(r)) - 1]));
    return (this._rows = rows.sort((a, b) => a[0] - b[0]));
  }

  step(step) {
    const { tokens } = this;
    const isPreempted = new Set(step.pre.map(([r]) => r));
    eachOfRanges(step.d, (r) => {
      tokens.set(r, (tokens.get(r) ?? 0) + 1);
      isPreempted.delete(r); // and is back in the same step
    });
    for (const r of isPreempted) tokens.delete(r);
    for (const [r, , n, computed] of step.r) tokens.set(r, computed + n);
    if (step.kv) this.change(step.kv);
    this._ended = new Map();
    for (const [r] of step.fin) {
      if (tokens.has(r)) this._ended.set(r, tokens.get(r));
      tokens.delete(r);
    }
    this._step = step;
    this._rows = null;
  }

  copyTo(other) {
    other.tokens = new Map(this.tokens);
    other._ended = this._ended;
    other._step = this._step;
    other._rows = this._rows;
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
    this.groups = null; // block -> KV cache group, where the layers keep KV in different ways
    this.nextOut = []; // head of the free queue
    this.fresh = new Set(); // handed out in this step
    this.evicted = new Set(); // lost their hash in this step
  }

  change(kv) {
    for (const [r, some] of kv.f ?? []) {
      const table = this.tables.get(r) ?? [];
      const blocks = some ?? table; // none told: all that it had
      const gone = new Set(blocks);
      const left = table.filter((b) => !gone.has(b));
      left.length ? this.tables.set(r, left) : this.tables.delete(r);
      for (const b of blocks) this._release(b, r);
    }
    for (const b of kv.e ?? []) this.cached[b] = 0;
    this.evicted = new Set(kv.e ?? []);
    this.fresh = new Set();
    for (const [r, groups] of kv.g ?? []) this._group(kv.a.find(([holder]) => holder === r)?.[1] ?? [], groups);
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

  _group(blocks, groups) {
    this.groups ??= new Uint8Array(this.refs.length);
    blocks.forEach((block, k) => (this.groups[block] = groups[k] ?? 0));
  }

  /** The logical index of each block of a table; each group has a table of its own, here they are in one list. */
  logicals(table) {
    if (!this.groups) return table.map((_, k) => k);
    const next = new Map();
    return table.map((block) => {
      const group = this.groups[block];
      next.set(group, (next.get(group) ?? -1) + 1);
      return next.get(group);
    });
  }

  _logical(request, block) {
    const table = this.tables.get(request);
    const at = table.indexOf(block);
    return this.groups && at >= 0 ? this.logicals(table)[at] : at;
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
      return [[this.owner[block], this._logical(this.owner[block], block)]];
    }
    const found = [];
    for (const r of this.tables.keys()) {
      const logical = this._logical(r, block);
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
    other.groups = this.groups?.slice() ?? null;
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
