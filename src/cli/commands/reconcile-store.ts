import { join } from 'node:path';

import { AUDIT_FILE } from '../../audit/file-sink.js';
import { findLost, type Lost } from '../../audit/find-lost.js';
import type { Entry } from '../../audit/verify-chain.js';
import { type Config, loadConfig } from '../../config/load.js';
import { formatProblem } from '../../config/problems.js';
import type { Settings } from '../../config/settings.js';
import { sourceOf } from '../../keys/chain.js';
import { unchanged } from '../../keys/change.js';
import { Deadline, systemClock } from '../../keys/clock.js';
import { newEventId } from '../../keys/ids.js';
import type { Key } from '../../keys/key.js';
import { organizationPath } from '../../keys/organization.js';
import { judgeLosses, keysNamed, type LeftOut, type Losses, reconcile } from '../../keys/reconcile.js';
import { isRefusal } from '../../keys/refusal.js';
import type { Store } from '../../store/port.js';
import { type ExitCode, exitCodes } from '../exit-codes.js';
import { UsageFault } from '../faults.js';
import { printable, printableJson } from '../output/printable.js';
import { print, type Terminal } from '../terminal.js';
import { fileEntries, topicEntries } from './audit-entries.js';
import { openStore } from './open-store.js';
import { Progress } from './progress.js';

export interface ReconcileOptions {
  readonly file?: readonly string[];
  readonly topic?: boolean;
  readonly apply?: boolean;
  readonly json?: boolean;
}

/** Of one organization: what its store lacks, and what became of it. */
interface Outcome {
  readonly lost: Lost;
  /** Absent where an obstacle stands in the way. */
  readonly losses?: Losses;
  /** For people, to stand behind a colon. */
  readonly obstacle?: string;
}

/** One organization's events are put back at once, however many they are. */
const CHANGE_MS = 120_000;

/** @throws CommandFault where something cannot be read, or a StoreFault */
export async function reconcileStore(options: ReconcileOptions, terminal: Terminal): Promise<ExitCode> {
  const config = await loadConfig(terminal.env);
  if (Array.isArray(config)) throw new UsageFault(config.map(formatProblem).join('\n'));
  const apply = options.apply === true;
  await using store = await openStore(config.settings);
  const found = await find(read(options, config.settings), store, config.settings, terminal);
  const outcomes: Outcome[] = [];
  for (const lost of found.organizations) outcomes.push(await settle(lost, store, config, apply));
  const report = { read: found.events, unreadable: found.unreadable, outcomes, apply };
  await print(terminal, options.json ? toJson(report) : describe(report));
  const missing = apply ? outcomes.filter(({ losses }) => !losses) : outcomes;
  return missing.length === 0 ? exitCodes.ok : exitCodes.no;
}

async function find(entries: AsyncIterable<Entry>, store: Store, { installation }: Settings, terminal: Terminal) {
  using progress = new Progress(terminal.stderr, systemClock);
  const onProgress = (reached: { events: number; share?: number }) => progress.show(reached);
  return await findLost(entries, store, { source: sourceOf(installation), clock: systemClock, onProgress });
}

async function* read({ file, topic }: ReconcileOptions, { auditSink }: Settings): AsyncGenerator<Entry> {
  if (file) {
    for (const path of file) yield* fileEntries(path);
  } else if (auditSink.kind === 'kafka') {
    yield* topicEntries(auditSink);
  } else {
    if (topic) throw new UsageFault('--topic: expected KEYREEVE_KAFKA_BROKERS to be set');
    yield* fileEntries(join(auditSink.dataDir, AUDIT_FILE));
  }
}

async function settle(lost: Lost, store: Store, { keyspaces }: Config, apply: boolean): Promise<Outcome> {
  const { organization, events, obstacle } = lost;
  if (obstacle !== undefined) return { lost, obstacle };
  const keyIds = keysNamed(events);
  const ask = { organization, lost: events, keyspace: keyspaces.get(organization.keyspace) };
  const draw = { now: systemClock.now(), eventIds: [...keyIds, ''].map(newEventId) };
  const losses = await store.change(
    { organization, keyIds },
    (state) => (apply ? reconcile(state, ask, draw) : unchanged(judgeLosses(state, ask))),
    Deadline.after(CHANGE_MS, systemClock),
  );
  if (isRefusal(losses)) throw new Error(`reconciling was refused: ${losses.refused}`);
  return losses ? { lost, losses } : { lost, obstacle: 'the store has changed meanwhile; run this again' };
}

interface Report {
  readonly read: number;
  readonly unreadable: number;
  readonly outcomes: readonly Outcome[];
  readonly apply: boolean;
}

function describe({ read, unreadable, outcomes, apply }: Report): string {
  const events = outcomes.reduce((sum, { lost }) => sum + lost.count, 0);
  const settled = outcomes.filter(({ losses }) => losses).length;
  return [
    events === 0
      ? `${count(read, 'event')} read: the store has them all.`
      : `${count(read, 'event')} read: the store ${apply ? 'lacked' : 'lacks'} ${count(events, 'event')} of ${count(outcomes.length, 'organization')}.`,
    ...(unreadable > 0 ? [`${count(unreadable, 'entry', 'entries')} passed over: no event, or altered.`] : []),
    ...outcomes.flatMap(describeOutcome),
    ...(settled > 0
      ? [apply ? `Put right: ${count(settled, 'organization')}.` : 'Nothing was changed: --apply does.']
      : []),
    ...(settled < outcomes.length
      ? [`Left as they are: ${count(outcomes.length - settled, 'organization')}; docs/restoring.md says what to do.`]
      : []),
  ].join('\n');
}

/** Lines of one kind; the rest is in the JSON. */
const LINES_MAX = 50;

function describeOutcome({ lost, losses, obstacle }: Outcome): string[] {
  const path = organizationPath(lost.organization);
  if (!losses) return [printable(`${path}: ${count(lost.count, 'event')} cannot be put back: ${obstacle ?? ''}`)];
  const kinds = [
    losses.unrevoked.map(({ key, reason, by }) => `revoked: ${nameOf(key)}, ${reason}, by event ${by.sequence}`),
    losses.wider.map(({ key, narrowed, by }) => `${whatNarrows(narrowed)}: ${nameOf(key)}, by event ${by.sequence}`),
    losses.suspension ? [`suspended, by event ${losses.suspension.sequence}`] : [],
    losses.plan ? [`given the plan ${losses.plan.name}, by event ${losses.plan.by.sequence}`] : [],
    losses.gone.map((key) => `gone for good: ${nameOf(key)}, made by event ${key.by.sequence}; it is denied`),
    losses.leftOut.map(({ key, what, by }) => {
      return `not done again: ${LEFT_OUT[what]}${key ? ` of ${nameOf(key)}` : ''}, event ${by.sequence}`;
    }),
  ];
  return [`${path}: ${whichEvents(lost)}`, ...kinds.flatMap(shortened).map((line) => `  ${line}`)].map(printable);
}

function shortened(lines: readonly string[]): string[] {
  const more = lines.length - LINES_MAX;
  return more > 0 ? [...lines.slice(0, LINES_MAX), `and ${more} more of these: --json has them all`] : [...lines];
}

function whichEvents({ events }: Lost): string {
  const [first, last] = [events[0]?.event.sequence ?? 0, events.at(-1)?.event.sequence ?? 0];
  return first === last ? `event ${first}` : `events ${first} to ${last}`;
}

function whatNarrows({ disabled, expireTime, scopes }: Losses['wider'][number]['narrowed']): string {
  return [
    ...(disabled ? ['switched off'] : []),
    ...(expireTime ? [`ended at ${expireTime.toISOString()}`] : []),
    ...(scopes ? [`left with the scopes ${scopes.join(' ') || '(none)'}`] : []),
  ].join(', ');
}

const LEFT_OUT: Readonly<Record<LeftOut['what'], string>> = {
  name: 'the name',
  labels: 'the labels',
  scopes: 'more scopes',
  expire_time: 'a later end',
  enabled: 'switching on',
  plan: 'a plan that the keyspaces file does not have',
  unsuspended: 'the end of the suspension',
};

function nameOf({ keyId, name, display }: Pick<Key, 'keyId' | 'name' | 'display'>): string {
  return `${keyId} (${JSON.stringify(name)}, ${display})`;
}

function toJson({ read, unreadable, outcomes, apply }: Report): string {
  const toKey = ({ keyId, name, display }: Pick<Key, 'keyId' | 'name' | 'display'>) => ({
    key_id: keyId,
    name,
    display,
  });
  return printableJson({
    events: read,
    unreadable,
    applied: apply,
    organizations: outcomes.map(({ lost, losses, obstacle }) => ({
      organization: organizationPath(lost.organization),
      missing: lost.count,
      after: `${organizationPath(lost.organization)}:${lost.head.sequence}:${lost.head.hash}`,
      obstacle: obstacle ?? null,
      ...(losses && {
        revoked: losses.unrevoked.map(({ key, reason, by }) => ({ ...toKey(key), reason, event: by.eventId })),
        narrowed: losses.wider.map(({ key, narrowed: { disabled, expireTime, scopes }, by }) => ({
          ...toKey(key),
          ...(disabled && { disabled }),
          ...(expireTime && { expire_time: expireTime.toISOString() }),
          ...(scopes && { scopes }),
          event: by.eventId,
        })),
        suspended: losses.suspension ? { event: losses.suspension.eventId } : null,
        plan: losses.plan ? { name: losses.plan.name, event: losses.plan.by.eventId } : null,
        gone: losses.gone.map((key) => ({ ...toKey(key), event: key.by.eventId })),
        left_out: losses.leftOut.map(({ key, what, by }) => ({ what, key_id: key?.keyId ?? null, event: by.eventId })),
      }),
    })),
  });
}

function count(number: number, noun: string, nouns = `${noun}s`): string {
  return `${number.toLocaleString('en-US')} ${number === 1 ? noun : nouns}`;
}
