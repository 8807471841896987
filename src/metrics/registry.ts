/** The metrics: every name, its labels and its meaning. The parts keep the figures; a scrape reads them. */
import { collectDefaultMetrics, Registry } from 'prom-client';

import type { Relay } from '../audit/relay.js';
import type { Clock } from '../keys/clock.js';
import { DECISIONS } from '../keys/judge-key.js';
import type { RunningVerifier } from '../verify/verifier.js';
import { type CallMeters, CODES } from './calls.js';
import { type Sample, showCounter, showGauge, showHistogram } from './exposition.js';
import type { StoreMeters } from './store.js';

/** What there is to watch. Without TLS there is no certificate, and in an embedded store no lease to run out. */
export interface Watched {
  readonly calls: CallMeters;
  readonly store: StoreMeters;
  readonly verifier: Pick<RunningVerifier, 'figures'>;
  readonly relay: Pick<Relay, 'backlog' | 'standing'>;
  /** Events beyond which creating and widening are refused. */
  readonly backlogMax: number;
  readonly isReady: () => boolean;
  /** When the server's certificate began to hold and when it ends: the one in force. */
  readonly certificate: () => { readonly from: Date; readonly until: Date } | undefined;
  /** Names of those that there are. */
  readonly keyspaces: Iterable<string>;
  readonly version: string;
  readonly clock: Clock;
}

/** In the place of a keyspace, for what is of none where none was named: a name that none can have. */
export const NO_KEYSPACE = '(none)';

/** A registry of its own for each service, so that several may run in one process. */
export function openRegistry(watched: Watched): Registry {
  const registry = new Registry();
  showCalls(watched, registry);
  showVerifications(watched, registry);
  showLeases(watched, registry);
  showAudit(watched, registry);
  showStore(watched, registry);
  showService(watched, registry);
  collectDefaultMetrics({ register: registry });
  return registry;
}

function showCalls({ calls }: Watched, registry: Registry): void {
  showCounter(
    {
      name: 'keyreeve_calls_total',
      help: 'Calls answered, by method, gRPC code and caller; (unknown): in no callers file, or refused before it was asked who calls.',
      labels: ['method', 'code', 'caller'],
      *read() {
        for (const [method, { counts }] of calls.byName) {
          for (const [caller, byCode] of counts) {
            for (const [code, count] of byCode.entries()) {
              if (count > 0) yield [{ method, code: CODES[code] ?? 'UNKNOWN', caller }, count];
            }
          }
        }
      },
    },
    registry,
  );
  showHistogram(
    {
      name: 'keyreeve_call_duration_seconds',
      help: 'From a request that was read to the answer as it was given to the transport.',
      labels: ['method'],
      *read() {
        for (const [method, { durations }] of calls.byName) yield [{ method }, durations];
      },
    },
    registry,
  );
}

function showVerifications({ verifier, keyspaces }: Watched, registry: Registry): void {
  const names = new Set([...keyspaces, '']);
  showCounter(
    {
      name: 'keyreeve_decisions_total',
      help: 'Verifications decided, by keyspace and decision, each of a batch for itself; (none): of no keyspace.',
      labels: ['keyspace', 'decision'],
      *read() {
        const { decisions } = verifier.figures();
        for (const name of names) {
          for (const decision of DECISIONS) {
            yield [{ keyspace: name || NO_KEYSPACE, decision }, decisions.get(name)?.[decision] ?? 0];
          }
        }
      },
    },
    registry,
  );
  showCounter(
    {
      name: 'keyreeve_cache_lookups_total',
      help: 'Look-ups in memory: hit, absent (known to be of no key), or miss (the store has to be asked).',
      labels: ['result'],
      read() {
        const { hit, absent, unknown } = verifier.figures().lookUps;
        return [by('result', 'hit', hit), by('result', 'absent', absent), by('result', 'miss', unknown)];
      },
    },
    registry,
  );
  showCounter(
    {
      name: 'keyreeve_cache_loads_total',
      help: 'Look-ups that memory could not answer: read from the store, or joined to a read that was under way.',
      labels: ['how'],
      read() {
        const { reads, joined } = verifier.figures().cache;
        return [by('how', 'read', reads), by('how', 'joined', joined)];
      },
    },
    registry,
  );
  const { counter, gauge } = plain(registry);
  gauge('keyreeve_cache_keys', 'Keys in memory.', () => verifier.figures().cache.keys);
  counter('keyreeve_cache_filled_total', 'Keys put into memory.', () => verifier.figures().cache.filled);
  counter('keyreeve_cache_evicted_total', 'Keys that made room for others.', () => verifier.figures().cache.evicted);
  gauge(
    'keyreeve_verifications_waiting',
    'Verifications that wait for the store.',
    () => verifier.figures().misses.waiting,
  );
  counter(
    'keyreeve_verifications_overloaded_total',
    'Verifications refused because too many of their caller waited for the store (OVERLOADED).',
    () => verifier.figures().misses.turnedDown,
  );
  counter(
    'keyreeve_verifications_undecided_total',
    'Verifications that came to no decision, each of a batch for itself: the store could not tell, or OVERLOADED.',
    () => verifier.figures().undecided,
  );
  counter(
    'keyreeve_budget_blocks_total',
    'Parts of rate budgets that were leased from the store.',
    () => verifier.figures().budgets.blocks,
  );
  showCounter(
    {
      name: 'keyreeve_budget_requests_total',
      help: 'Requests that count against a rate limit, admitted or refused.',
      labels: ['result'],
      read() {
        const { admitted, refused } = verifier.figures().budgets;
        return [by('result', 'admitted', admitted), by('result', 'refused', refused)];
      },
    },
    registry,
  );
  gauge(
    'keyreeve_last_uses_pending',
    'Keys whose last use is not written yet.',
    () => verifier.figures().lastUses.pending,
  );
  counter('keyreeve_last_uses_written_total', 'Last uses written.', () => verifier.figures().lastUses.written);
  counter(
    'keyreeve_last_uses_lost_total',
    'Last uses lost because the store was away for too long.',
    () => verifier.figures().lastUses.lost,
  );
}

function showLeases({ verifier, store }: Watched, registry: Registry): void {
  const { counter, gauge } = plain(registry);
  gauge('keyreeve_lease_held', 'Whether this replica may answer from memory: 1 or 0.', () =>
    Number(verifier.figures().lease.holds),
  );
  if (verifier.figures().lease.remainingMs !== undefined) {
    gauge(
      'keyreeve_lease_remaining_seconds',
      'For how long the lease holds unless it is renewed.',
      () => (verifier.figures().lease.remainingMs ?? 0) / 1000,
    );
    gauge(
      'keyreeve_replicas',
      'Replicas that may answer from memory, as this one last counted them, itself included.',
      () => verifier.figures().lease.replicas ?? 0,
    );
  }
  showCounter(
    {
      name: 'keyreeve_unleased_reads_total',
      help: 'Reads of the store for want of a lease, that it answered or that failed.',
      labels: ['result'],
      read() {
        const { read, failed } = verifier.figures().unleased;
        return [by('result', 'answered', read), by('result', 'failed', failed)];
      },
    },
    registry,
  );
  showHistogram(
    {
      name: 'keyreeve_enforcement_duration_seconds',
      help: 'From the commit of what takes access away until no replica answers by what was before.',
      labels: [],
      read: () => [[{}, store.enforcements]],
    },
    registry,
  );
  counter(
    'keyreeve_enforcements_incomplete_total',
    'Changes that take access away and were answered before it was so everywhere (complete_by_time).',
    () => store.incomplete,
  );
}

function showAudit({ relay, backlogMax, clock }: Watched, registry: Registry): void {
  const { counter, gauge } = plain(registry);
  gauge('keyreeve_outbox_events', 'Audit events that are not published yet.', () => relay.backlog.depth);
  gauge(
    'keyreeve_outbox_events_max',
    'Unpublished events beyond which creating and widening are refused (KEYREEVE_AUDIT_BACKLOG_MAX).',
    () => backlogMax,
  );
  gauge('keyreeve_outbox_oldest_event_age_seconds', 'Age of the oldest of them; 0: there is none.', () => {
    const { oldestTime } = relay.backlog;
    return oldestTime ? Math.max(0, clock.now().getTime() - oldestTime.getTime()) / 1000 : 0;
  });
  gauge('keyreeve_relay_leader', 'Whether this replica is the one that publishes: 1 or 0.', () =>
    Number(relay.standing.leads),
  );
  counter(
    'keyreeve_audit_published_events_total',
    'Audit events published by this replica, repeats included.',
    () => relay.standing.published,
  );
  showCounter(
    {
      name: 'keyreeve_audit_sink_faults_total',
      help: 'Publishings that failed, by kind: unavailable passes, refused needs somebody.',
      labels: ['kind'],
      read: () => Object.entries(relay.standing.faults).map(([kind, count]) => by('kind', kind, count)),
    },
    registry,
  );
}

function showStore({ store }: Watched, registry: Registry): void {
  showHistogram(
    {
      name: 'keyreeve_store_duration_seconds',
      help: 'Calls of the store, by operation, whatever they came to.',
      labels: ['operation'],
      *read() {
        for (const [operation, durations] of store.durations) yield [{ operation }, durations];
      },
    },
    registry,
  );
  showCounter(
    {
      name: 'keyreeve_store_faults_total',
      help: 'Calls of the store that came to no answer, by operation and kind: unavailable, contention, other.',
      labels: ['operation', 'kind'],
      *read() {
        for (const [operation, troubles] of store.troubles) {
          for (const [kind, count] of troubles) yield [{ operation, kind }, count];
        }
      },
    },
    registry,
  );
}

function showService({ isReady, certificate, version }: Watched, registry: Registry): void {
  const { gauge } = plain(registry);
  gauge('keyreeve_ready', 'Whether it can answer calls, as health tells: 1 or 0.', () => Number(isReady()));
  if (certificate()) {
    const seconds = (time: Date | undefined) => (time ? time.getTime() / 1000 : 0);
    gauge(
      'keyreeve_certificate_begin_timestamp_seconds',
      "When the server's certificate in force began to hold, in Unix time.",
      () => seconds(certificate()?.from),
    );
    gauge(
      'keyreeve_certificate_end_timestamp_seconds',
      "When the server's certificate in force ends, in Unix time.",
      () => seconds(certificate()?.until),
    );
  }
  showGauge(
    {
      name: 'keyreeve_build_info',
      help: 'What runs: always 1.',
      labels: ['version', 'node_version'],
      read: () => [[{ version, node_version: process.version }, 1]],
    },
    registry,
  );
}

function by<Label extends string>(label: Label, value: string, figure: number): Sample<Label> {
  return [{ [label]: value } as Record<Label, string>, figure];
}

/** Metrics of one series. */
function plain(registry: Registry) {
  const shown = (name: string, help: string, read: () => number) => ({
    ...{ name, help, labels: [] },
    read: (): Sample<never>[] => [[{}, read()]],
  });
  return {
    counter: (name: string, help: string, read: () => number) => showCounter(shown(name, help, read), registry),
    gauge: (name: string, help: string, read: () => number) => showGauge(shown(name, help, read), registry),
  };
}
