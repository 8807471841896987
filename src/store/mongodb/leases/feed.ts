/**
 * Every change of keys and organizations, in the order in which they were committed, through a change stream. One loop
 * opens the stream, reads it and opens the next one where the last applied change was: two readers of one stream lose
 * changes, and so does one that goes on from what it has read and not applied.
 */
import type { Document, ResumeToken, Timestamp } from 'mongodb';

import type { Connection } from '../connection.js';
import { troubleOf } from '../trouble.js';

/** What the server tells of a change, as far as it is used. */
export interface FeedEvent {
  readonly _id: ResumeToken;
  readonly operationType: string;
  readonly clusterTime: Timestamp;
  readonly ns?: { readonly coll?: string };
  readonly documentKey?: { readonly _id: unknown };
  /** Of an insert or a replacement. */
  readonly fullDocument?: Document;
  readonly updateDescription?: { readonly updatedFields?: Document; readonly removedFields?: readonly string[] };
}

export interface FeedParts {
  readonly connection: Connection;
  /** From when on changes are told. */
  readonly from: Timestamp;
  /** Which changes, on the server: stages after `$changeStream`. */
  readonly filter: readonly Document[];
  /** Applies a change, all of it before it returns. */
  readonly apply: (event: FeedEvent) => void;
}

// The server looks for news that long before it answers that there are none.
const AWAIT_MS = 1000;
const BATCH_SIZE = 1000;

export class Feed {
  readonly #parts: FeedParts;
  /** Of the last change that was applied; undefined: there was none. */
  #token: ResumeToken;
  #position: Timestamp;
  #giveUp: () => void = () => undefined;
  #fail: (reason: Error) => void = () => undefined;
  #trouble: unknown;

  constructor(parts: FeedParts) {
    this.#parts = parts;
    this.#position = parts.from;
  }

  /** The time of the last change that was applied. */
  get position(): Timestamp {
    return this.#position;
  }

  /** Why no stream could be read last. */
  get trouble(): unknown {
    return this.#trouble;
  }

  /** Ends the feed with this error, unless no stream is open now. */
  fail(reason: Error): void {
    this.#fail(reason);
  }

  /** Leaves the stream, which may be dead without saying so, for another one. */
  reopen(): void {
    this.#giveUp();
  }

  /**
   * Tells of changes until it is ended.
   * @throws what the server says where it cannot go on from the last change, or what `apply` throws
   */
  async run(ended: AbortSignal): Promise<void> {
    const { connection } = this.#parts;
    const leave = () => this.#giveUp();
    ended.addEventListener('abort', leave);
    try {
      for (let attempt = 0; !ended.aborted; attempt += 1) {
        const before = this.#token;
        try {
          await this.#read(ended);
        } catch (error) {
          if (troubleOf(error) === undefined) throw error;
          this.#trouble = error;
        }
        if (this.#token !== before) attempt = 0;
        if (!(await connection.rest(attempt, ended))) return;
      }
    } finally {
      ended.removeEventListener('abort', leave);
    }
  }

  /** Reads one stream to its end, or until it is left. */
  async #read(ended: AbortSignal): Promise<void> {
    const { connection, from, filter, apply } = this.#parts;
    const start = this.#token === undefined ? { startAtOperationTime: from } : { resumeAfter: this.#token };
    const stream = connection.db.aggregate<FeedEvent>([{ $changeStream: start }, ...filter], {
      maxAwaitTimeMS: AWAIT_MS,
      batchSize: BATCH_SIZE,
    });
    let next: Promise<unknown> | undefined;
    try {
      while (!ended.aborted) {
        const first = await new Promise<FeedEvent | null>((resolve, reject) => {
          this.#giveUp = () => resolve(null);
          this.#fail = reject;
          const read = stream.next();
          next = read;
          read.then(resolve, reject);
        });
        if (!first) return;
        this.#trouble = undefined;
        for (const event of [first, ...stream.readBufferedDocuments()]) {
          apply(event);
          this.#token = event._id;
          this.#position = event.clusterTime;
        }
      }
    } finally {
      this.#giveUp = () => undefined;
      this.#fail = () => undefined;
      // It may wait for a server that does not answer.
      connection.runAside(async () => {
        // Only then the server has said what there is to close.
        if (stream.id === undefined) await next?.catch(() => undefined);
        await stream.close();
      });
    }
  }
}
