/** Real events, and what stands for the store's and the sink's networks in the relay's tests. */
import { pino } from 'pino';
import type { Logger } from 'pino';

import type { Backlog, Leadership, Outbox, SinkPosition } from '../../src/audit/outbox.js';
import type { Entry } from '../../src/audit/verify-chain.js';
import { canonicalJson, type CloudEvent, hashOf } from '../../src/keys/chain.js';
import { type Change, toCommit } from '../../src/keys/change.js';
import { createKey } from '../../src/keys/create-key.js';
import type { AuditEvent } from '../../src/keys/event.js';
import { newOrganization, organizationPath, type OrganizationRef } from '../../src/keys/organization.js';
import { type Refusal, isRefusal } from '../../src/keys/refusal.js';
import { revokeKey } from '../../src/keys/revoke-key.js';
import type { Key } from '../../src/keys/key.js';
import {
  acme,
  aKeyspace,
  aMutation,
  askingToCreate,
  askingToRevoke,
  drawToCreate,
  drawToRevoke,
  SOURCE,
} from './domain.js';

/** Of W3C Trace Context's own examples. */
export const TRACEPARENT = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';

/**
 * An organization's first events, as the rules make them: a key is created, then revoked, then another. The revocations are
 * part of a trace, the creations of none, as were all before there were traces.
 */
export function makeChain(count: number, organization: OrganizationRef = acme, source = SOURCE): AuditEvent[] {
  const mutation = aMutation({ organization });
  let state = { organization: newOrganization(organization), selected: [] as Key[], listed: [] };
  const events: AuditEvent[] = [];
  while (events.length < count) {
    const [key] = state.selected;
    const change = key
      ? granted(
          revokeKey(
            state,
            askingToRevoke({
              mutation: { ...mutation, traceparent: TRACEPARENT },
              selector: { by: 'key_id', keyId: key.keyId },
            }),
            drawToRevoke(),
          ),
        )
      : granted(createKey(state, askingToCreate({ mutation }), aKeyspace(), drawToCreate(aKeyspace())));
    const commit = toCommit(state, change, source);
    events.push(...commit.events);
    state = {
      organization: commit.organization,
      selected: key ? [] : commit.put.map(({ after }) => after),
      listed: [],
    };
  }
  return events;
}

function granted<A>(answer: Change<A> | Refusal): Change<A> {
  if (isRefusal(answer)) throw new Error(`refused: ${answer.refused}`);
  return answer;
}

/** As a file holds them, a line each. */
export function toEntries(events: readonly Pick<AuditEvent, 'cloudEvent'>[]): Entry[] {
  return events.map(({ cloudEvent }, at) => ({ text: cloudEvent, position: `line ${at + 1}` }));
}

/** The event with its content changed, and with the hash that this content has: what somebody does who knows how. */
export function rewrite(event: AuditEvent, change: (envelope: CloudEvent) => void): AuditEvent {
  const envelope = JSON.parse(event.cloudEvent) as CloudEvent;
  change(envelope);
  const hash = hashOf(envelope);
  envelope.data.hash = hash;
  return { ...event, eventId: envelope.id, hash, cloudEvent: canonicalJson(envelope) };
}

/** The event with its content changed and its hash left as it was. */
export function edit(event: AuditEvent, from: string | RegExp, to: string): AuditEvent {
  const cloudEvent = event.cloudEvent.replace(from, to);
  if (cloudEvent === event.cloudEvent) throw new Error('the event has nothing of the kind');
  return { ...event, cloudEvent };
}

export interface LogLine {
  readonly level: number;
  readonly msg: string;
  readonly [field: string]: unknown;
}

/** A logger, and what it was told. */
export function captureLog(): { log: Logger; lines: LogLine[] } {
  const lines: LogLine[] = [];
  const log = pino(
    { level: 'trace' },
    {
      write(line: string) {
        lines.push(JSON.parse(line) as LogLine);
      },
    },
  );
  return { log, lines };
}

export const silentLog: Logger = pino({ level: 'silent' });

/** An outbox in memory: for tests of the relay alone, which need a store that fails, hangs and is shared at will. */
export class MemoryOutbox implements Outbox {
  readonly #events: AuditEvent[] = [];
  readonly #published = new Set<string>();
  readonly #listeners = new Set<() => void>();
  readonly #reached = new Map<string, Map<number, number>>();
  #leadership: Leadership | undefined;
  /** Called before each answer with the call's name: may throw, or take its time. */
  intercept: (call: keyof Outbox) => void | Promise<void> = () => undefined;
  readonly calls: (keyof Outbox)[] = [];

  commit(events: readonly AuditEvent[], { ring = true } = {}): void {
    this.#events.push(...events);
    if (ring) for (const listener of this.#listeners) listener();
  }

  get unpublished(): AuditEvent[] {
    return this.#events.filter(({ eventId }) => !this.#published.has(eventId));
  }

  get leadership(): Leadership | undefined {
    return this.#leadership;
  }

  async pending(limit: number, wanted?: (organization: OrganizationRef) => boolean): Promise<AuditEvent[]> {
    await this.#arrive('pending');
    return this.unpublished.filter((event) => wanted?.(event) ?? true).slice(0, limit);
  }

  async markPublished(events: readonly AuditEvent[], { sink, lane, end }: SinkPosition): Promise<void> {
    await this.#arrive('markPublished');
    for (const { eventId } of events) this.#published.add(eventId);
    const lanes = this.#reached.get(sink) ?? new Map<number, number>();
    this.#reached.set(sink, lanes.set(lane, Math.max(end, lanes.get(lane) ?? 0)));
  }

  async positions(sink: string): Promise<ReadonlyMap<number, number>> {
    await this.#arrive('positions');
    return new Map(this.#reached.get(sink));
  }

  async remember(positions: readonly SinkPosition[]): Promise<void> {
    await this.#arrive('remember');
    for (const { sink, lane, end } of positions) {
      this.#reached.set(sink, new Map(this.#reached.get(sink)).set(lane, end));
    }
  }

  async backlog(limit: number): Promise<Backlog> {
    await this.#arrive('backlog');
    const [oldest] = this.unpublished;
    return { depth: Math.min(limit, this.unpublished.length), ...(oldest && { oldestTime: oldest.time }) };
  }

  onCommit(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async readLeadership(): Promise<Leadership | undefined> {
    await this.#arrive('readLeadership');
    return this.#leadership;
  }

  async replaceLeadership(expected: Leadership | undefined, next: Leadership): Promise<boolean> {
    await this.#arrive('replaceLeadership');
    if (this.#leadership?.holder !== expected?.holder || this.#leadership?.count !== expected?.count) return false;
    this.#leadership = next;
    return true;
  }

  async #arrive(call: keyof Outbox): Promise<void> {
    this.calls.push(call);
    await this.intercept(call);
  }
}

/** Whether each organization's first copies come in order and without a gap, as consumers need them. */
export function firstCopies(events: readonly AuditEvent[]): Map<string, number[]> {
  const sequences = new Map<string, number[]>();
  for (const event of events) {
    const path = organizationPath(event);
    const seen = sequences.get(path) ?? [];
    if (!seen.includes(event.sequence)) seen.push(event.sequence);
    sequences.set(path, seen);
  }
  return sequences;
}
