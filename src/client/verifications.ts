/**
 * Verifications on their way. What is asked for in one turn of the event loop travels together, as does what gathers
 * while as many calls are under way as may be; what is alone leaves alone, as VerifyKey, and waits for nobody.
 */
import { setTimeout as sleep } from 'node:timers/promises';

import { BatchVerifyKeysRequest } from '../gen/keyreeve/encoded/v1/batch.js';
import type { BatchVerifyKeysResponse } from '../gen/keyreeve/v1/key_service.js';
import {
  type BatchVerifyKeysResult,
  KeyServiceService,
  VerifyKeyRequest,
  type VerifyKeyResponse,
} from '../gen/keyreeve/v1/key_service.js';
import type { Connection, Connections, Method } from './connections.js';
import type { Deadline } from './deadline.js';
import { ServiceFault } from './fault.js';
import { type Told, toItemRefusalOrFault } from './refusal.js';
import { waitBeforeRetry } from './retry.js';

// The service takes no more in one call.
const BATCH_MAX = 100;
// Of the 256 KiB that it takes; an item that is larger by itself goes alone, and fails alone.
const BATCH_BYTES_MAX = 200 * 1024;
const CALLS_MAX = 16;

export class Verifications {
  readonly #connections: Connections;
  readonly #closing: AbortSignal;
  #queue: Asked[] = [];
  #calls = 0;
  #leaving = false;

  /** @param closing from when on nothing is tried again */
  constructor(connections: Connections, closing: AbortSignal) {
    this.#connections = connections;
    this.#closing = closing;
  }

  /** @throws ServiceFault */
  verify(request: VerifyKeyRequest, deadline: Deadline): Promise<Told<VerifyKeyResponse>> {
    return new Promise((resolve, reject) => {
      this.#add(new Asked(VerifyKeyRequest.encode(request).finish(), deadline, resolve, reject));
    });
  }

  #add(asked: Asked): void {
    this.#queue.push(asked);
    this.#leaveSoon();
  }

  #leaveSoon(): void {
    if (this.#leaving) return;
    this.#leaving = true;
    // After all that this turn still asks for, and before anything is waited for.
    process.nextTick(() => {
      this.#leaving = false;
      while (this.#calls < CALLS_MAX && this.#queue.length > 0) void this.#send(this.#takeBatch());
      for (const asked of this.#queue) asked.watch();
    });
  }

  #takeBatch(): readonly Asked[] {
    const countMax = Math.min(this.#queue.length, BATCH_MAX);
    let count = 0;
    for (let bytes = 0; count < countMax; count += 1) {
      bytes += this.#queue[count]?.request.length ?? 0;
      if (bytes > BATCH_BYTES_MAX && count > 0) break;
    }
    return this.#queue.splice(0, count).filter(({ over }) => !over);
  }

  /** Never rejects. */
  async #send(batch: readonly Asked[]): Promise<void> {
    if (batch.length === 0) return;
    this.#calls += 1;
    if (batch.length > 1) for (const asked of batch) asked.watch();
    const outcomes = await outcomesOf(batch, this.#connections.pick());
    this.#calls -= 1;
    if (this.#queue.length > 0) this.#leaveSoon();

    const failed = batch.filter((asked, at) => !asked.answered(outcomes[at]));
    if (failed.length > 0) await this.#repeat(failed);
  }

  /** Together again, so that what fails in a batch is repeated in one. */
  async #repeat(failed: readonly Asked[]): Promise<void> {
    const jitter = Math.random();
    let longestMs = 0;
    const again = failed.filter(({ fault, tries, deadline }) => {
      const waitMs = fault && waitBeforeRetry(fault, tries, this.#connections.fit, () => jitter);
      if (waitMs === undefined || waitMs >= deadline.leftMs) return false;
      longestMs = Math.max(longestMs, waitMs);
      return true;
    });
    for (const asked of failed) if (!again.includes(asked)) asked.giveUp();
    if (again.length === 0) return;
    try {
      await sleep(longestMs, undefined, { signal: this.#closing });
      for (const asked of again) this.#add(asked);
    } catch {
      for (const asked of again) asked.giveUp();
    }
  }
}

type Outcome = Told<VerifyKeyResponse> | ServiceFault;

/** One verification, until it has its answer or its time is over. */
class Asked {
  readonly deadline: Deadline;
  /** Encoded. */
  readonly request: Uint8Array;
  readonly #resolve: (told: Told<VerifyKeyResponse>) => void;
  readonly #reject: (fault: ServiceFault) => void;
  #timer: NodeJS.Timeout | undefined;
  over = false;
  tries = 0;
  /** The last try's. */
  fault: ServiceFault | undefined;

  constructor(
    request: Uint8Array,
    deadline: Deadline,
    resolve: (told: Told<VerifyKeyResponse>) => void,
    reject: (fault: ServiceFault) => void,
  ) {
    this.request = request;
    this.deadline = deadline;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  /** Ends it when its time is over. Not needed by one that travels alone: its call ends by itself. */
  watch(): void {
    this.#timer ??= setTimeout(() => this.giveUp(), this.deadline.leftMs);
  }

  /** Says whether this was the answer; else there is a fault. */
  answered(outcome: Outcome = new ServiceFault('INTERNAL', 'the service left a verification out')): boolean {
    this.tries += 1;
    if (outcome instanceof ServiceFault) {
      this.fault = outcome;
      return false;
    }
    this.#end();
    this.#resolve(outcome);
    return true;
  }

  giveUp(): void {
    this.#end();
    this.#reject(this.fault ?? new ServiceFault('DEADLINE_EXCEEDED', 'there was no answer in time'));
  }

  #end(): void {
    this.over = true;
    clearTimeout(this.#timer);
  }
}

/** What became of each, in their order. Never rejects. */
async function outcomesOf(batch: readonly Asked[], connection: Connection): Promise<readonly Outcome[]> {
  const requests = batch.map(({ request }) => request);
  const timeoutMs = Math.max(...batch.map(({ deadline }) => deadline.tryMs));
  try {
    const [only] = requests;
    if (only && requests.length === 1) return [await connection.call(VERIFY_KEY, only, timeoutMs)];
    const told = await connection.call(BATCH_VERIFY_KEYS, requests, timeoutMs);
    return told.ok ? told.response.results.map((result) => outcomeOf(result, connection)) : batch.map(() => told);
  } catch (error) {
    const fault =
      error instanceof ServiceFault ? error : new ServiceFault('UNKNOWN', 'it failed here', { cause: error });
    return batch.map(() => fault);
  }
}

function outcomeOf({ result }: BatchVerifyKeysResult, connection: Connection): Outcome {
  if (!result) return new ServiceFault('INTERNAL', 'the service answered neither a response nor a failure');
  if (result.$case === 'response') return { ok: true, response: result.value };
  const outcome = toItemRefusalOrFault(result.value);
  if (outcome instanceof ServiceFault) connection.heed(outcome);
  return outcome;
}

const VERIFY_KEY: Method<Uint8Array, VerifyKeyResponse> = {
  ...KeyServiceService.verifyKey,
  requestSerialize: (request) => Buffer.from(request),
};

const BATCH_VERIFY_KEYS: Method<readonly Uint8Array[], BatchVerifyKeysResponse> = {
  ...KeyServiceService.batchVerifyKeys,
  // Each request has been encoded already, to know its size.
  requestSerialize: (requests) =>
    Buffer.from(BatchVerifyKeysRequest.encode({ requests: requests.map(toBuffer) }).finish()),
};

function toBuffer({ buffer, byteOffset, byteLength }: Uint8Array): Buffer {
  return Buffer.from(buffer, byteOffset, byteLength);
}
