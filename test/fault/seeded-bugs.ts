/**
 * Bugs to try the checker with: each breaks one promise in the source, and a scenario in which that shows. What is
 * replaced must be there exactly once, so a bug whose place has changed is noticed.
 */
import { setTimeout as sleep } from 'node:timers/promises';

import type { Findings, ViolationKind } from './checker.js';
import type { Program, Replacement } from './program.js';
import type { Random } from './random.js';
import { startEmbeddedStack, startReplicatedStack } from './stack.js';
import { runTrial } from './trial.js';

export interface SeededBug {
  readonly name: string;
  readonly replacements: readonly Replacement[];
  readonly scenario: (program: Program, random: Random) => Promise<Findings>;
  /** What the checker must call it. */
  readonly caughtAs: ViolationKind;
}

export const SEEDED_BUGS: readonly SeededBug[] = [
  {
    name: 'an event is written after the transaction',
    replacements: [
      {
        file: 'src/store/sqlite/change.ts',
        from: 'for (const event of events) insertEvent.run({ ...toEventRow(event), published: Number(event.published) });',
        to: 'setTimeout(() => { for (const event of events) insertEvent.run({ ...toEventRow(event), published: 0 }); }, 5);',
      },
    ],
    scenario: embedded('dies before-answer', 'dies before-answer'),
    caughtAs: 'event-missing',
  },
  {
    name: 'a change is answered before it is committed',
    replacements: [
      {
        file: 'src/store/sqlite/change.ts',
        from: 'write(commit);',
        to: 'setTimeout(() => connection.transaction(() => write(commit)), 20);',
      },
    ],
    scenario: embedded('service killed', 'service killed', 'service killed'),
    caughtAs: 'lost-key',
  },
  {
    name: 'events are marked published before the sink has them',
    replacements: [
      {
        file: 'src/audit/relay.ts',
        from: 'end = await this.#sink.publish(number, events, this.#sendMs());',
        to: 'await this.#mark(events, { sink: this.#sink.name, lane: number, end: 0 }); end = await this.#sink.publish(number, events, this.#sendMs());',
      },
    ],
    scenario: embedded('dies within-batch', 'dies within-batch'),
    caughtAs: 'event-missing',
  },
  {
    name: 'a batch is marked published though half of it failed',
    replacements: [
      {
        file: 'src/audit/relay.ts',
        from: "else this.#faults.tell('warn', SINK_AWAY, fields);\n      return;",
        to: "else this.#faults.tell('warn', SINK_AWAY, fields);\n      end = 0;",
      },
    ],
    scenario: embedded('sink fails'),
    caughtAs: 'event-missing',
  },
  {
    name: 'events are read in the wrong order',
    replacements: [
      {
        file: 'src/store/sqlite/outbox.ts',
        from: 'WHERE published = 0 ORDER BY time, keyspace, organization_id, sequence LIMIT :limit',
        to: 'WHERE published = 0 ORDER BY time DESC, sequence DESC LIMIT :limit',
      },
    ],
    scenario: embedded('sink fails'),
    caughtAs: 'event-disorder',
  },
  {
    name: 'an event gets its sequence from memory',
    replacements: [
      {
        file: 'src/keys/chain.ts',
        from: 'const sequence = head.sequence + 1;',
        to: `const memory = (globalThis.sequences ??= new Map());
    const path = organizationPath(organization);
    const sequence = Math.max(head.sequence, memory.get(path) ?? 0) + 1;
    memory.set(path, sequence);`,
      },
    ],
    scenario: embedded('disk full', 'disk full', 'disk full'),
    caughtAs: 'event-missing',
  },
  {
    name: 'the key limit is checked outside of the transaction',
    replacements: [
      {
        file: 'src/grpc/create-key.ts',
        from: 'const created = await commit(load, (state) => createKey(state, ask, keyspace, draw), call, parts);',
        to: `const { keyCount } = await store.findOrganization(organization, call.deadline);
    await new Promise((resolve) => setTimeout(resolve, 100));
    const created = await commit(load, (state) =>
      createKey({ ...state, organization: { ...state.organization, keyCount } }, ask, keyspace, draw), call, parts);`,
      },
    ],
    scenario: embedded('pause', 'pause', 'pause'),
    caughtAs: 'limit-exceeded',
  },
  {
    name: 'a request id is not compared with what was asked',
    replacements: [
      {
        file: 'src/keys/repeat.ts',
        from: "if (state.request.hash !== mutation.request.hash) return { refused: 'REQUEST_ID_REUSED' };",
        to: '',
      },
    ],
    scenario: embedded('pause', 'pause'),
    caughtAs: 'request-not-compared',
  },
  {
    name: 'a request id is not stored',
    replacements: [{ file: 'src/store/sqlite/change.ts', from: 'if (!request) return;', to: 'if (request) return;' }],
    scenario: embedded('pause', 'pause'),
    caughtAs: 'second-key',
  },
  {
    name: 'a repeated revocation makes another event',
    replacements: [
      {
        file: 'src/keys/revoke-key.ts',
        from: "(one.standing.kind === 'revoked' ? one : revoked(one, ask, draw.now))",
        to: 'revoked(one, ask, draw.now)',
      },
    ],
    scenario: embedded('pause', 'pause', 'pause'),
    caughtAs: 'event-twice',
  },
  {
    name: 'a suspension is stored and not looked at',
    replacements: [{ file: 'src/keys/judge-key.ts', from: "if (suspended) return 'ORGANIZATION_SUSPENDED';", to: '' }],
    scenario: embedded('pause', 'pause'),
    caughtAs: 'valid-while-off',
  },
  {
    name: 'an earlier end is stored and not looked at',
    replacements: [{ file: 'src/keys/judge-key.ts', from: "return 'EXPIRED';", to: "return 'VALID';" }],
    scenario: embedded('pause', 'pause', 'pause', 'pause'),
    caughtAs: 'valid-after-expiry',
  },
  {
    name: 'a lineage has more than one superseded key that goes on working',
    replacements: [
      {
        file: 'src/keys/rotate-key.ts',
        from: "(one) => one.lineageId === old.lineageId && one.supersededBy !== undefined && one.standing.kind !== 'revoked',",
        to: '() => false,',
      },
    ],
    // Only a key that was rotated twice within this time shows it.
    scenario: embedded(...Array<string>(10).fill('pause')),
    caughtAs: 'revocation-lost',
  },
  {
    name: 'a store that is away is answered as a key that is not there',
    replacements: [
      {
        file: 'src/verify/verifier.ts',
        from: 'const found = known === undefined ? cache.fill(place, following.readNow(lookUp.keyspace.name, bytes)) : known;',
        to: `let found = known;
      try { found ??= cache.fill(place, following.readNow(lookUp.keyspace.name, bytes)); } catch { found = null; }`,
      },
    ],
    scenario: embedded('store away'),
    caughtAs: 'wrong-denial',
  },
  {
    name: 'a rate budget is granted in memory',
    replacements: [
      {
        file: 'src/verify/budgets.ts',
        from: 'const block = await this.#store.takeBudget(ask, Deadline.after(ASK_MS_MAX, this.#clock));',
        to: `const held = this.#held.get(lineageId);
    const open = held && !held.hasEnded(this.#clock);
    const block = await Promise.resolve(open ? { taken: 0, left: 0, endsInMs: 60_000 } : { taken: limit, left: 0, endsInMs: 60_000 });`,
      },
    ],
    scenario: embedded('service killed', 'pause', 'pause'),
    caughtAs: 'rate-exceeded',
  },
  {
    name: 'nobody waits for Kafka to acknowledge',
    replacements: [
      { file: 'src/audit/kafka-sink.ts', from: 'acks: -1,', to: 'acks: 0,' },
      {
        file: 'src/audit/kafka-sink.ts',
        from: 'if (answer?.errorCode !== 0 || answer.baseOffset === undefined) {',
        to: 'if (sent) return 0; else {',
      },
    ],
    scenario: replicated('Kafka behind a network that swallows', 'Kafka killed', 'Kafka cut off for a moment'),
    caughtAs: 'event-missing',
  },
];

/** No fault, for as long as one would last. */
const PAUSE = { name: 'pause', make: () => sleep(500, 0) };

type Scenario = SeededBug['scenario'];

function embedded(...names: readonly string[]): Scenario {
  return async (program, random) => {
    await using stack = await startEmbeddedStack({ program });
    return await runTrial(stack, { random, faults: named([...stack.faults, PAUSE], names), publishedMsMax: 10_000 });
  };
}

function replicated(...names: readonly string[]): Scenario {
  return async (program, random) => {
    await using stack = await startReplicatedStack({ program });
    return await runTrial(stack, { random, faults: named(stack.faults, names) });
  };
}

const ATTEMPTS_MAX = 3;

/** What a bug broke until the kind that is waited for came: a fault has to meet it, which no single run is sure of. */
export async function kindsFound<Kind extends string>(
  run: (attempt: number) => Promise<{ readonly violations: readonly { readonly kind: Kind }[] }>,
  wanted: Kind,
): Promise<Kind[]> {
  const found: Kind[] = [];
  for (let attempt = 0; attempt < ATTEMPTS_MAX && !found.includes(wanted); attempt += 1) {
    const { violations } = await run(attempt);
    found.push(...violations.map(({ kind }) => kind));
  }
  return found;
}

/** @throws Error where there is no fault of a name */
export function named<F extends { readonly name: string }>(faults: readonly F[], names: readonly string[]): F[] {
  return names.map((name) => {
    const fault = faults.find((one) => one.name === name);
    if (!fault) throw new Error(`there is no fault called: ${name}`);
    return fault;
  });
}
