import { join } from 'node:path';

import { AUDIT_FILE } from '../../audit/file-sink.js';
import { findLost, type Found, type Lost, whereUnreadable } from '../../audit/find-lost.js';
import type { Entry } from '../../audit/verify-chain.js';
import { loadConfig } from '../../config/load.js';
import { formatProblem } from '../../config/problems.js';
import type { Settings } from '../../config/settings.js';
import { counted } from '../../counted.js';
import { sourceOf } from '../../keys/chain.js';
import { systemClock } from '../../keys/clock.js';
import type { Key } from '../../keys/key.js';
import { organizationPath } from '../../keys/organization.js';
import type { GoneKey, LeftOut, Losses } from '../../keys/reconcile.js';
import type { Store } from '../../store/port.js';
import { type ExitCode, exitCodes } from '../exit-codes.js';
import { UsageFault } from '../faults.js';
import { printable, printableJson } from '../output/printable.js';
import { print, type Terminal } from '../terminal.js';
import { fileEntries, topicEntries } from './audit-entries.js';
import { openStore } from './open-store.js';
import { Progress } from './progress.js';
import { type Outcome, settle } from './reconcile-organization.js';

export interface ReconcileOptions {
  readonly file?: readonly string[];
  readonly topic?: boolean;
  readonly apply?: boolean;
  readonly json?: boolean;
}

/** @throws CommandFault where something cannot be read, or a StoreFault */
export async function reconcileStore(options: ReconcileOptions, terminal: Terminal): Promise<ExitCode> {
  const config = await loadConfig(terminal.env);
  if (Array.isArray(config)) throw new UsageFault(config.map(formatProblem).join('\n'));
  const apply = options.apply === true;
  await using store = await openStore(config.settings);
  const found = await find(read(options, config.settings), store, config.settings, terminal);
  const outcomes: Outcome[] = [];
  const settling = { keyspaces: config.keyspaces, apply, clock: systemClock };
  for (const lost of found.organizations) outcomes.push(await settle(lost, store, settling));
  const report = { found, outcomes, apply };
  await print(terminal, options.json ? toJson(report) : describe(report));
  const missing = apply ? outcomes.filter(({ losses }) => !losses) : outcomes;
  return missing.length === 0 && wasCompared(found) ? exitCodes.ok : exitCodes.no;
}

/** Whether all that could be an event of this installation was one, and there was one where there were others. */
function wasCompared({ events, foreign, unreadable }: Found): boolean {
  return unreadable.count === 0 && (events > 0 || foreign === 0);
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

interface Report {
  readonly found: Found;
  readonly outcomes: readonly Outcome[];
  readonly apply: boolean;
}

function describe({ found, outcomes, apply }: Report): string {
  const { foreign, unreadable } = found;
  const settled = outcomes.filter(({ losses }) => losses).length;
  return [
    `${counted(found.events, 'event')} read: ${describeFound(found, apply)}.`,
    ...(unreadable.count > 0
      ? [
          `${counted(unreadable.count, 'entry', 'entries')} could not be read (${whereUnreadable(unreadable)}): no event, or ` +
            'a damaged one that the store may lack; docs/restoring.md says what to do.',
        ]
      : []),
    ...(foreign > 0 ? [`${counted(foreign, 'event')} of other installations passed over.`] : []),
    ...outcomes.flatMap(describeOutcome),
    ...(settled > 0
      ? [apply ? `Put right: ${counted(settled, 'organization')}.` : 'Nothing was changed: --apply does.']
      : []),
    ...(settled < outcomes.length
      ? [`Left as they are: ${counted(outcomes.length - settled, 'organization')}; docs/restoring.md says what to do.`]
      : []),
  ].join('\n');
}

function describeFound({ events, unreadable, organizations }: Found, apply: boolean): string {
  const missing = organizations.reduce((sum, lost) => sum + lost.count, 0);
  if (missing > 0) {
    return `the store ${apply ? 'lacked' : 'lacks'} ${counted(missing, 'event')} of ${counted(organizations.length, 'organization')}`;
  }
  if (events === 0) return 'nothing was compared with the store';
  return unreadable.count > 0 ? 'the store has these' : 'the store has them all';
}

/** Lines of one kind; the rest is in the JSON. */
const LINES_MAX = 50;

function describeOutcome({ lost, losses, obstacle }: Outcome): string[] {
  const path = organizationPath(lost.organization);
  if (!losses) return [printable(`${path}: ${counted(lost.count, 'event')} cannot be put back: ${obstacle ?? ''}`)];
  const kinds = [
    losses.unrevoked.map(({ key, reason, by }) => `revoked: ${nameOf(key)}, ${reason}, by event ${by.sequence}`),
    losses.wider.map(({ key, narrowed, by }) => `${whatNarrows(narrowed)}: ${nameOf(key)}, by event ${by.sequence}`),
    losses.suspension ? [`suspended, by event ${losses.suspension.sequence}`] : [],
    losses.plan ? [`given the plan ${losses.plan.name}, by event ${losses.plan.by.sequence}`] : [],
    losses.gone.filter(({ revocation }) => revocation).map(describeGone),
    losses.gone.filter(({ revocation }) => !revocation).map(describeGone),
    losses.leftOut.map(({ key, what, by }) => {
      return `not done again: ${LEFT_OUT[what]}${key ? ` of ${nameOf(key)}` : ''}, event ${by.sequence}`;
    }),
  ];
  return [`${path}: ${whichEvents(lost)}`, ...kinds.flatMap(shortened).map((line) => `  ${line}`)].map(printable);
}

function describeGone(key: GoneKey): string {
  const made = `${nameOf(key)}, made by event ${key.by.sequence}`;
  return key.revocation
    ? `gone for good, and revoked by event ${key.revocation.by.sequence}: do not import it again: ${made}`
    : `gone for good: ${made}; it is denied`;
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

function toJson({ found: { events, foreign, unreadable }, outcomes, apply }: Report): string {
  const toKey = ({ keyId, name, display }: Pick<Key, 'keyId' | 'name' | 'display'>) => ({
    key_id: keyId,
    name,
    display,
  });
  return printableJson({
    events,
    foreign,
    unreadable: unreadable.count,
    unreadable_at: unreadable.positions,
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
        gone: losses.gone.map((key) => ({
          ...toKey(key),
          event: key.by.eventId,
          revoked: key.revocation ? { reason: key.revocation.reason, event: key.revocation.by.eventId } : null,
        })),
        left_out: losses.leftOut.map(({ key, what, by }) => ({ what, key_id: key?.keyId ?? null, event: by.eventId })),
      }),
    })),
  });
}
