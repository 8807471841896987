/**
 * A client that sends a message of its own with each call and takes next to no time for it, where h2load repeats one and
 * grpc-js takes longer than the server that it measures: HTTP/2 frames, laid out beforehand, on plain sockets. It looks
 * at each answer's decision and at no header; a call that ends without a message has failed.
 */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { setImmediate } from 'node:timers';

import { Decision } from '../../src/gen/keyreeve/v1/verification.js';

export interface WireTarget {
  readonly address: string;
  /** `/package.Service/Method` */
  readonly path: string;
  /** Absent: as many as h2load's. */
  readonly connections?: number;
}

/** What is sent, each as a frame of gRPC. The index is that of the call, from 0 on. */
export type Messages = (call: number) => Buffer;

export interface Answers {
  readonly seconds: number;
  /** Of each call: its message's first field where that is the decision, 0 where it has none, -1 without a message. */
  readonly decisions: Int8Array;
  /** Of each call, from when it was due to its end. */
  readonly ms: Float64Array;
}

const CONNECTIONS = 8;
// What the server lets be open at once on each of them.
const STREAMS_MAX = 100;
const RUN_MS_MAX = 120_000;

export class WireClient implements Disposable {
  readonly #connections: WireConnection[] = [];

  static async open(target: WireTarget): Promise<WireClient> {
    const client = new WireClient();
    for (let at = 0; at < (target.connections ?? CONNECTIONS); at += 1)
      client.#connections.push(await WireConnection.open(target));
    return client;
  }

  /** So many calls at once, each followed by the next, until all have been answered. */
  async keepBusy(inFlight: number, calls: number, messages: Messages): Promise<Answers> {
    const run = new Run(calls);
    let begun = 0;
    run.onAnswer = (connection) => {
      if (begun < calls) connection.send(run, begun, performance.now(), messages(begun++));
    };
    for (let at = 0; at < Math.min(inFlight, calls); at += 1) {
      this.#at(at).send(run, begun, performance.now(), messages(begun++));
    }
    return this.#finish(run);
  }

  /** A call each time that one is due, however many have not been answered yet. */
  async keepPace(perSecond: number, calls: number, messages: Messages): Promise<Answers> {
    const run = new Run(calls);
    const beginMs = performance.now();
    let begun = 0;
    await new Promise<void>((resolve) => {
      // A timer would be late by up to a millisecond, which is longer than most calls take.
      const turn = () => {
        const dueNow = Math.min(calls, Math.floor(((performance.now() - beginMs) * perSecond) / 1000));
        for (; begun < dueNow; begun += 1) {
          this.#at(begun).send(run, begun, beginMs + (begun * 1000) / perSecond, messages(begun));
        }
        for (const connection of this.#connections) connection.flush();
        if (begun < calls) setImmediate(turn);
        else resolve();
      };
      turn();
    });
    return this.#finish(run);
  }

  async #finish(run: Run): Promise<Answers> {
    for (const connection of this.#connections) connection.flush();
    return run.finished(this.#connections);
  }

  #at(call: number): WireConnection {
    const connection = this.#connections[call % this.#connections.length];
    if (!connection) throw new Error('the client has no connection');
    return connection;
  }

  [Symbol.dispose](): void {
    for (const connection of this.#connections) connection.close();
  }
}

/** The calls of one measurement. */
class Run {
  readonly decisions: Int8Array;
  readonly ms: Float64Array;
  onAnswer: (connection: WireConnection) => void = () => undefined;
  readonly #beginMs = performance.now();
  #left: number;
  #done: () => void = () => undefined;

  constructor(calls: number) {
    this.#left = calls;
    this.decisions = new Int8Array(calls);
    this.ms = new Float64Array(calls);
  }

  answer(connection: WireConnection, call: number, dueMs: number, decision: number): void {
    this.decisions[call] = decision;
    this.ms[call] = performance.now() - dueMs;
    this.#left -= 1;
    this.onAnswer(connection);
    if (this.#left === 0) this.#done();
  }

  async finished(connections: readonly WireConnection[]): Promise<Answers> {
    if (this.#left > 0) await this.#whenDone(connections);
    return { seconds: (performance.now() - this.#beginMs) / 1000, decisions: this.decisions, ms: this.ms };
  }

  #whenDone(connections: readonly WireConnection[]): Promise<void> {
    return new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error(`${this.#left} calls were not answered`)), RUN_MS_MAX);
      this.#done = () => {
        clearTimeout(late);
        resolve();
      };
      for (const connection of connections) {
        connection.onBroken = (error) => {
          clearTimeout(late);
          reject(error);
        };
      }
    });
  }
}

interface Pending {
  readonly run: Run;
  readonly call: number;
  readonly dueMs: number;
  decision: number;
}

interface Waiting {
  readonly run: Run;
  readonly call: number;
  readonly dueMs: number;
  readonly message: Buffer;
}

// https://www.rfc-editor.org/rfc/rfc9113#name-frame-definitions
const HEAD = 9;
const DATA = 0;
const HEADERS = 1;
const RST_STREAM = 3;
const SETTINGS = 4;
const PING = 6;
const GOAWAY = 7;
const WINDOW_UPDATE = 8;
const ACK = 1;
const END_STREAM = 1;
const END_HEADERS = 4;
const PREFACE = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n';
const WINDOW = 65_535;
const WINDOW_MAX = 0x7fff_ffff;
const INITIAL_WINDOW_SIZE = 4;
// gRPC's: a flag and four bytes of length. Then the first field: the decision is number 1, a varint.
const PREFIX = 5;
const DECISION_TAG = 0x08;
const OUT_BYTES = 256 * 1024;

class WireConnection {
  readonly #socket: Socket;
  readonly #firstHeaders: Buffer;
  readonly #headers = indexedHeaders();
  readonly #pending = new Map<number, Pending>();
  readonly #waiting: Waiting[] = [];
  #out = Buffer.allocUnsafeSlow(OUT_BYTES);
  #outLength = 0;
  #rest: Buffer = Buffer.alloc(0);
  #nextStream = 1;
  #window = WINDOW;
  onBroken: (error: Error) => void = () => undefined;

  static async open({ address, path }: WireTarget): Promise<WireConnection> {
    const [host, port] = address.split(':');
    const socket = connect({ host: host ?? '', port: Number(port), noDelay: true });
    await once(socket, 'connect');
    return new WireConnection(socket, literalHeaders(path, address));
  }

  constructor(socket: Socket, firstHeaders: Buffer) {
    this.#socket = socket;
    this.#firstHeaders = firstHeaders;
    socket.on('data', (chunk: Buffer) => this.#read(chunk));
    socket.on('error', (error) => this.onBroken(error));
    socket.on('close', () => this.onBroken(new Error('the server closed the connection')));
    const settings = Buffer.alloc(6);
    settings.writeUInt16BE(INITIAL_WINDOW_SIZE, 0);
    settings.writeUInt32BE(WINDOW_MAX, 2);
    const update = Buffer.alloc(4);
    // For all that a run is answered: nothing is said of it again.
    update.writeUInt32BE(WINDOW_MAX - WINDOW);
    socket.write(
      Buffer.concat([Buffer.from(PREFACE), frame(SETTINGS, 0, 0, settings), frame(WINDOW_UPDATE, 0, 0, update)]),
    );
  }

  /** Leaves with the next `flush`, or when what came before it has been answered. */
  send(run: Run, call: number, dueMs: number, message: Buffer): void {
    if (this.#waiting.length > 0 || !this.#takes(message)) this.#waiting.push({ run, call, dueMs, message });
    else this.#begin(run, call, dueMs, message);
  }

  #takes({ length }: Buffer): boolean {
    return this.#pending.size < STREAMS_MAX && this.#window >= length;
  }

  #begin(run: Run, call: number, dueMs: number, message: Buffer): void {
    this.#window -= message.length;
    const stream = this.#nextStream;
    this.#nextStream += 2;
    const headers = stream === 1 ? this.#firstHeaders : this.#headers;
    // No message is larger than half of it: see `flush`.
    if (this.#outLength + 2 * HEAD + headers.length + message.length > this.#out.length) this.flush();
    this.#put(HEADERS, END_HEADERS, stream, headers);
    this.#put(DATA, END_STREAM, stream, message);
    this.#pending.set(stream, { run, call, dueMs, decision: -1 });
  }

  flush(): void {
    if (this.#outLength === 0) return;
    this.#socket.write(this.#out.subarray(0, this.#outLength));
    // The socket may still need the bytes.
    this.#out = this.#out.subarray(this.#outLength);
    this.#outLength = 0;
    if (this.#out.length < OUT_BYTES / 2) this.#out = Buffer.allocUnsafeSlow(OUT_BYTES);
  }

  close(): void {
    this.onBroken = () => undefined;
    this.#socket.destroy();
  }

  #put(type: number, flags: number, stream: number, payload: Buffer): void {
    writeHead(this.#out, this.#outLength, type, flags, stream, payload.length);
    payload.copy(this.#out, this.#outLength + HEAD);
    this.#outLength += HEAD + payload.length;
  }

  #read(chunk: Buffer): void {
    const bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    let at = 0;
    while (bytes.length - at >= HEAD) {
      const length = bytes.readUIntBE(at, 3);
      if (bytes.length - at < HEAD + length) break;
      this.#take(bytes, at, length);
      at += HEAD + length;
    }
    this.#rest = bytes.subarray(at);
    this.#beginWaiting();
    this.flush();
  }

  #take(bytes: Buffer, at: number, length: number): void {
    const type: number = bytes.readUInt8(at + 3);
    const flags = bytes.readUInt8(at + 4);
    const stream = bytes.readUInt32BE(at + 5);
    switch (type) {
      case DATA:
        this.#takeData(stream, bytes, at + HEAD, length);
        break;
      case RST_STREAM:
        this.#end(stream);
        return;
      case SETTINGS:
        if ((flags & ACK) === 0) this.#put(SETTINGS, ACK, 0, Buffer.alloc(0));
        return;
      case PING:
        if ((flags & ACK) === 0) this.#put(PING, ACK, 0, bytes.subarray(at + HEAD, at + HEAD + length));
        return;
      case WINDOW_UPDATE:
        if (stream === 0) this.#window += bytes.readUInt32BE(at + HEAD);
        return;
      case GOAWAY:
        this.onBroken(new Error('the server wants no more calls'));
        return;
      case HEADERS:
        break;
      default:
        return;
    }
    if ((flags & END_STREAM) !== 0) this.#end(stream);
  }

  #takeData(stream: number, bytes: Buffer, from: number, length: number): void {
    const pending = this.#pending.get(stream);
    if (!pending || pending.decision >= 0 || length === 0) return;
    pending.decision = bytes[from + PREFIX] === DECISION_TAG ? (bytes[from + PREFIX + 1] ?? 0) : 0;
  }

  #end(stream: number): void {
    const pending = this.#pending.get(stream);
    if (!pending) return;
    this.#pending.delete(stream);
    pending.run.answer(this, pending.call, pending.dueMs, pending.decision);
  }

  #beginWaiting(): void {
    let begun = 0;
    for (const { run, call, dueMs, message } of this.#waiting) {
      if (!this.#takes(message)) break;
      this.#begin(run, call, dueMs, message);
      begun += 1;
    }
    if (begun > 0) this.#waiting.splice(0, begun);
  }
}

/** How many of the answers from an index on had this decision. */
export function countDecided({ decisions }: Answers, decision: Decision): number {
  let count = 0;
  for (const one of decisions) if (one === (decision as number)) count += 1;
  return count;
}

/** @throws Error unless all were VALID */
export function expectValid(answers: Answers, who: string): void {
  const valid = countDecided(answers, Decision.VALID);
  if (valid === answers.decisions.length) return;
  throw new Error(`${who}: ${answers.decisions.length - valid} of ${answers.decisions.length} answers were not VALID`);
}

function frame(type: number, flags: number, stream: number, payload: Buffer): Buffer {
  const bytes = Buffer.alloc(HEAD + payload.length);
  writeHead(bytes, 0, type, flags, stream, payload.length);
  payload.copy(bytes, HEAD);
  return bytes;
}

function writeHead(bytes: Buffer, at: number, type: number, flags: number, stream: number, length: number): void {
  bytes.writeUIntBE(length, at, 3);
  bytes[at + 3] = type;
  bytes[at + 4] = flags;
  bytes.writeUInt32BE(stream, at + 5);
}

// https://www.rfc-editor.org/rfc/rfc7541#appendix-A: what the first call adds to the table, in this order, later calls
// name by number.
function literalHeaders(path: string, authority: string): Buffer {
  const added = [
    [Buffer.of(0x44), text(path)],
    [Buffer.of(0x41), text(authority)],
    [Buffer.of(0x5f), text('application/grpc')],
    [Buffer.of(0x40), text('te'), text('trailers')],
  ];
  return Buffer.concat([METHOD_AND_SCHEME, ...added.flat()]);
}

function indexedHeaders(): Buffer {
  return Buffer.concat([METHOD_AND_SCHEME, Buffer.of(0x80 | 65, 0x80 | 64, 0x80 | 63, 0x80 | 62)]);
}

// `:method: POST` and `:scheme: http`.
const METHOD_AND_SCHEME = Buffer.of(0x83, 0x86);

/** Of less than 127 bytes, as all are here. */
function text(value: string): Buffer {
  return Buffer.concat([Buffer.of(value.length), Buffer.from(value)]);
}
