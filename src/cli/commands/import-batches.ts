/** Sending keys to import: so many at once as the service takes, and again while it is away. */
import { randomUUID } from 'node:crypto';
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';

import type { Failure } from '../../gen/keyreeve/v1/failure.js';
import type { Key } from '../../gen/keyreeve/v1/key.js';
import {
  ImportKeysItem,
  ImportKeysRequest,
  type ImportKeysResult,
  KeyServiceService,
} from '../../gen/keyreeve/v1/key_service.js';
import type { Clock } from '../../keys/clock.js';
import { exitCodes } from '../exit-codes.js';
import { CommandFault } from '../faults.js';
import type { ServiceClient } from '../service/client.js';
import { exitCodeOf } from '../service/errors.js';
import type { ImportLine } from './import-line.js';

const KEYS_MAX = 500;
const REQUEST_BYTES_MAX = 256 * 1024;
// The field's tag, and the item's length in at most 3 bytes.
const ITEM_FRAME_BYTES = 4;
const FIRST_WAIT_MS = 250;
const WAIT_MS_MAX = 5000;

/** What all requests of an import have in common. */
export type ImportRequest = Pick<ImportKeysRequest, 'keyspace' | 'actor'>;

/** What became of one line, or what is known of it before it is sent. */
export type Parsed = { readonly line: number } & (ImportLine | { readonly failure: Failure });
export type Outcome = { readonly line: number } & (
  | { readonly outcome: 'IMPORTED' | 'ALREADY_IMPORTED'; readonly key: Key }
  | { readonly outcome: 'REFUSED'; readonly failure: Failure }
);

/** Gathers as many lines as one request can hold, whatever their organizations. */
export async function* gather(lines: AsyncIterable<Parsed>, request: ImportRequest): AsyncGenerator<Parsed[], void> {
  const longest = { organizationId: 'x'.repeat(128), requestId: 'x'.repeat(128), keys: [] };
  const empty = ImportKeysRequest.encode({ ...request, ...longest }).finish().length;
  let gathered: Parsed[] = [];
  let bytes = empty;
  for await (const line of lines) {
    const itemBytes = 'item' in line ? ImportKeysItem.encode(line.item).finish().length + ITEM_FRAME_BYTES : 0;
    if (gathered.length === KEYS_MAX || (gathered.length > 0 && bytes + itemBytes > REQUEST_BYTES_MAX)) {
      yield gathered;
      gathered = [];
      bytes = empty;
    }
    gathered.push(line);
    bytes += itemBytes;
  }
  if (gathered.length > 0) yield gathered;
}

/** The service, asked again for `retryForMs` while it is away. */
export class Importer {
  readonly #client: ServiceClient;
  readonly #request: ImportRequest;
  readonly #clock: Clock;
  readonly #retryForMs: number;
  // The events of one import have it in common; the service takes an id for one request alone.
  readonly #importId = randomUUID();
  #requests = 0;

  constructor(
    client: ServiceClient,
    request: ImportRequest,
    { clock, retryForMs }: { clock: Clock; retryForMs: number },
  ) {
    this.#client = client;
    this.#request = request;
    this.#clock = clock;
    this.#retryForMs = retryForMs;
  }

  /**
   * Imports lines, an organization after the other as they first come, each in the order of its lines.
   * @param settle is told what became of a line, once for each
   * @throws CommandFault where the service refuses the call, or stays away: lines not settled then may be imported
   */
  async import(lines: readonly Parsed[], settle: (outcome: Outcome) => void): Promise<void> {
    const byOrganization = new Map<string, (ImportLine & { line: number })[]>();
    for (const parsed of lines) {
      if ('failure' in parsed) {
        settle({ line: parsed.line, outcome: 'REFUSED', failure: parsed.failure });
        continue;
      }
      const others = byOrganization.get(parsed.organizationId);
      if (others) others.push(parsed);
      else byOrganization.set(parsed.organizationId, [parsed]);
    }
    for (const [organizationId, items] of byOrganization) await this.#importTo(organizationId, items, settle);
  }

  async #importTo(
    organizationId: string,
    items: readonly (ImportLine & { line: number })[],
    settle: (outcome: Outcome) => void,
  ): Promise<void> {
    const patience = new Patience(this.#clock, this.#retryForMs);
    let open = items;
    while (open.length > 0) {
      const results = await this.#ask(organizationId, open, patience);
      const left: typeof open = open.filter(({ line }, at) => {
        const outcome = toOutcome(line, results[at]);
        if (outcome) settle(outcome);
        return !outcome;
      });
      if (left.length < open.length) patience.renew();
      const [away] = results
        .flatMap(({ result }) => (result?.$case === 'failure' ? [result.value] : []))
        .filter(isAway);
      if (away) await patience.wait(new CommandFault(exitCodes.unavailable, `${away.reason}: ${away.message}`));
      open = left;
    }
  }

  /** One result for each item. */
  async #ask(
    organizationId: string,
    items: readonly ImportLine[],
    patience: Patience,
  ): Promise<readonly ImportKeysResult[]> {
    this.#requests += 1;
    const requestId = `${this.#importId}.${this.#requests}`;
    const request = { ...this.#request, organizationId, requestId, keys: items.map(({ item }) => item) };
    for (;;) {
      try {
        const { results } = await this.#client.call(KeyServiceService.importKeys, request);
        if (results.length === items.length) return results;
      } catch (error) {
        if (!(error instanceof CommandFault) || error.exitCode !== exitCodes.unavailable) throw error;
        await patience.wait(error);
        continue;
      }
      throw new CommandFault(exitCodes.internal, 'the service answered not one result for each key');
    }
  }
}

/** Undefined where nothing became of the line yet: the service was away, or had no room in its answer. */
function toOutcome(line: number, answer: ImportKeysResult | undefined): Outcome | undefined {
  switch (answer?.result?.$case) {
    case 'key':
      return {
        line,
        outcome: answer.alreadyImported ? 'ALREADY_IMPORTED' : 'IMPORTED',
        key: answer.result.value,
      };
    case 'failure': {
      const failure = answer.result.value;
      return isAway(failure) || failure.reason === 'TOO_MANY_ITEMS' ? undefined : { line, outcome: 'REFUSED', failure };
    }
    case undefined:
      throw new CommandFault(exitCodes.internal, 'the service answered a result that is none');
  }
}

function isAway({ code, reason }: Failure): boolean {
  return exitCodeOf(code, reason) === exitCodes.unavailable;
}

/** How long to wait between tries, and for how long to try. */
class Patience {
  readonly #clock: Clock;
  readonly #forMs: number;
  #sinceMs: number | undefined;
  #waitMs = FIRST_WAIT_MS;

  constructor(clock: Clock, forMs: number) {
    this.#clock = clock;
    this.#forMs = forMs;
  }

  renew(): void {
    this.#sinceMs = undefined;
    this.#waitMs = FIRST_WAIT_MS;
  }

  /** @throws CommandFault the fault, once it has lasted too long; interrupted with Ctrl-C */
  async wait(fault: CommandFault): Promise<void> {
    const nowMs = this.#clock.monotonicMs();
    this.#sinceMs ??= nowMs;
    const leftMs = this.#sinceMs + this.#forMs - nowMs;
    if (leftMs <= 0) throw fault;
    const interruption = new AbortController();
    const interrupt = () => interruption.abort();
    process.once('SIGINT', interrupt);
    try {
      await sleep(Math.min(this.#waitMs, leftMs), undefined, { signal: interruption.signal });
    } catch (error) {
      throw new CommandFault(exitCodes.interrupted, 'interrupted', { cause: error });
    } finally {
      process.off('SIGINT', interrupt);
    }
    this.#waitMs = Math.min(this.#waitMs * 2, WAIT_MS_MAX);
  }
}
