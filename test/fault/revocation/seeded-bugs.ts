/**
 * Bugs to try the checker with: each breaks one part of the protocol in the source, and a scenario in which that shows
 * every time. What is replaced must be there exactly once, so a bug whose place has changed is noticed.
 */
import type { Replacement } from '../program.js';
import type { RevocationViolationKind } from './checker.js';
import {
  betweenLives,
  calm,
  cutOff,
  deposedPrimary,
  joinedRound,
  joining,
  lateRecord,
  lateStream,
  mixedLeases,
  pausedBeyondLease,
  repeated,
  type Scenario,
  sleepingMachine,
  stalledStream,
  stalledStreamByBatch,
} from './scenarios.js';

export interface SeededAccessBug {
  readonly name: string;
  readonly replacements: readonly Replacement[];
  readonly scenario: Scenario;
  /** What the checker must call it. */
  readonly caughtAs: RevocationViolationKind;
}

const LEASES = 'src/store/mongodb/leases';

export const SEEDED_ACCESS_BUGS: readonly SeededAccessBug[] = [
  {
    name: 'memory answers whether the lease is alive or not',
    replacements: [
      { file: `${LEASES}/membership.ts`, from: 'return this.#lease.holds();', to: 'return this.#isJoined;' },
    ],
    scenario: stalledStream,
    caughtAs: 'valid-after-enforced',
  },
  {
    name: 'the lease is looked at before a verification begins, and not after',
    replacements: [
      {
        file: `${LEASES}/follow.ts`,
        from: 'holds: () => membership?.holds() === true,',
        to: `holds: () => {
          const before = globalThis.held === true;
          globalThis.held = membership?.holds() === true;
          return before;
        },`,
      },
    ],
    scenario: pausedBeyondLease,
    caughtAs: 'valid-after-enforced',
  },
  {
    name: 'a lease counts from when its renewal is seen, not from before it was written',
    replacements: [{ file: `${LEASES}/lease.ts`, from: 'this.#proven = moment;', to: 'this.#proven = this.#now();' }],
    scenario: lateStream,
    caughtAs: 'valid-after-enforced',
  },
  {
    name: 'a lease is renewed by the write, without the proof of the stream',
    replacements: [
      {
        file: `${LEASES}/membership.ts`,
        from: 'await connection.ask(Deadline.after(leaseMs, clock))(write);',
        to: 'await connection.ask(Deadline.after(leaseMs, clock))(write); this.#lease.prove(number);',
      },
    ],
    scenario: stalledStream,
    caughtAs: 'valid-after-enforced',
  },
  {
    name: 'a lease does not end while the machine sleeps',
    replacements: [
      {
        file: `${LEASES}/lease.ts`,
        from: 'return this.#clock.now().getTime() - this.#proven.wallMs < this.#ms;',
        to: 'return true;',
      },
    ],
    scenario: sleepingMachine,
    caughtAs: 'valid-after-enforced',
  },
  {
    name: 'a change is acknowledged before it is applied',
    replacements: [
      {
        file: `${LEASES}/membership.ts`,
        from: 'tell(this.#parts.follower, event);',
        to: 'setTimeout(() => tell(this.#parts.follower, event), 3000);',
      },
    ],
    scenario: calm,
    caughtAs: 'valid-after-enforced',
  },
  {
    name: 'a record that was read before a change and arrives after it brings the old one back',
    replacements: [
      {
        file: 'src/verify/record-cache.ts',
        from: 'return told && told.revision > read.revision ? told : read;',
        to: 'return read;',
      },
    ],
    scenario: lateRecord,
    caughtAs: 'valid-after-enforced',
  },
  {
    name: 'the replicas to wait for are read before the commit',
    replacements: [
      {
        file: 'src/store/mongodb/open.ts',
        from: 'const changed = await change(load, rule, deadline);',
        to: `const rows = await collections.replicas.find({}).toArray();
        globalThis.before = rows.map((row) => ({ id: row._id, applied: row.applied, leaseMs: Number(row.lease_ms) }));
        const changed = await change(load, rule, deadline);`,
      },
      {
        file: `${LEASES}/enforcement.ts`,
        from: 'const joined = await members.at(time, deadline);',
        to: 'const joined = globalThis.before;',
      },
    ],
    scenario: joining,
    caughtAs: 'valid-after-enforced',
  },
  {
    name: 'a verification without a lease reads what a majority has acknowledged as far as this member knows',
    replacements: [
      {
        file: 'src/store/mongodb/read.ts',
        from: "keys.findOne<VerifiableRow>(filter, { ...bounds, projection: VERIFIABLE, readConcern: 'linearizable' })",
        to: "keys.findOne<VerifiableRow>(filter, { ...bounds, projection: VERIFIABLE, readConcern: 'majority' })",
      },
    ],
    scenario: deposedPrimary,
    caughtAs: 'valid-after-enforced',
  },
  {
    name: 'what is kept stays after the place in the stream is lost',
    replacements: [
      {
        file: `${LEASES}/follow.ts`,
        from: `membership = undefined;
        follower.allChanged();`,
        to: 'membership = undefined;',
      },
    ],
    scenario: betweenLives,
    caughtAs: 'valid-after-enforced',
  },
  {
    name: 'a replica is taken for dead before its lease is over',
    replacements: [
      {
        file: `${LEASES}/members.ts`,
        from: 'nowMs - still.sinceMs < DRIFT * Number(lease_ms)',
        to: 'nowMs - still.sinceMs < 0.3 * Number(lease_ms)',
      },
    ],
    scenario: cutOff,
    caughtAs: 'valid-after-enforced',
  },
  {
    name: 'changes of organizations are not told',
    replacements: [
      {
        file: `${LEASES}/tell.ts`,
        from: "export const RECORDS = ['keys', 'organizations'] as const;",
        to: "export const RECORDS = ['keys'] as const;",
      },
      // Else it is noticed, and everything forgotten, before it shows.
      { file: `${LEASES}/stream-check.ts`, from: '(this.#revisions.get(path) ?? revision) < revision', to: 'false' },
    ],
    scenario: calm,
    caughtAs: 'valid-after-enforced',
  },
  {
    name: 'a batch answers from memory whether the lease is alive or not',
    replacements: [
      {
        file: 'src/grpc/batch-verify-keys.ts',
        from: 'const verification = verify(request, call);',
        to: `globalThis.inBatch = true;
      const verification = verify(request, call);
      globalThis.inBatch = false;`,
      },
      {
        file: 'src/verify/verifier.ts',
        from: 'if (!following.holds()) return undefined;',
        to: 'if (!globalThis.inBatch && !following.holds()) return undefined;',
      },
      // Else what is kept is forgotten before the call has waited for long enough.
      {
        file: `${LEASES}/membership.ts`,
        from: "this.#feed.fail(new Expelled('its change stream is too far behind'));",
        to: '',
      },
    ],
    scenario: stalledStreamByBatch,
    caughtAs: 'valid-after-enforced',
  },
  {
    name: 'a repeated revocation is complete because the key is revoked',
    replacements: [
      {
        file: 'src/grpc/revoke-key.ts',
        from: 'await enforce(true, keyspace, call, parts)',
        to: "await enforce(key.standing.kind === 'revoked' && key.standing.time >= draw.now, keyspace, call, parts)",
      },
    ],
    scenario: repeated,
    caughtAs: 'valid-after-enforced',
  },
  {
    name: 'the shortest lease is waited for, not the longest',
    replacements: [
      {
        file: `${LEASES}/enforcement.ts`,
        from: 'DRIFT * Math.max(0, ...joined.map(({ leaseMs }) => leaseMs))',
        to: 'DRIFT * Math.min(...joined.map(({ leaseMs }) => leaseMs))',
      },
    ],
    scenario: mixedLeases,
    caughtAs: 'valid-after-enforced',
  },
  {
    name: 'a call joins a wait that began before its change was committed',
    replacements: [
      {
        file: `${LEASES}/enforcement.ts`,
        from: `this.#next = undefined;
      return this.#begin(turn);`,
        to: `const round = this.#begin(turn);
      void round.then((one) => one.finished).finally(() => {
        this.#next = undefined;
      });
      return round;`,
      },
    ],
    scenario: joinedRound,
    caughtAs: 'valid-after-enforced',
  },
];
