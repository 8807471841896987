/** What the cache may know: never less than it was told. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import type { Clock } from '../../src/keys/clock.js';
import { digestPlaceOf, toHex } from '../../src/keys/digest.js';
import type { Key } from '../../src/keys/key.js';
import { newOrganization, type Organization, organizationPath } from '../../src/keys/organization.js';
import type { FoundKey } from '../../src/store/port.js';
import { type KnownRecord, RecordCache, type RecordCacheOptions } from '../../src/verify/record-cache.js';
import { acme, aKey } from '../support/domain.js';

const DIGESTS = [0, 1, 2, 3].map((n) => Buffer.alloc(32, n));
const placeOf = (n: number) => digestPlaceOf('shop', toHex(DIGESTS[n] ?? Buffer.alloc(32)));

/** A store as the cache meets it: what was read may arrive long after, and each change is told as it is made. */
class World {
  nowMs = 0;
  readonly clock: Clock = { now: () => new Date(this.nowMs), monotonicMs: () => this.nowMs };
  readonly cache: RecordCache;
  readonly keys = new Map<number, Key>();
  /** A digest is of one credential, and so of one key for ever, whatever form it has now. */
  readonly #owners = new Map<number, string>();
  organization: Organization = { ...newOrganization(acme), revision: 1 };
  readonly #reads: (() => void)[] = [];
  reads = 0;

  constructor(options: Omit<RecordCacheOptions, 'clock'> = {}) {
    this.cache = new RecordCache({ clock: this.clock, ...options });
  }

  /** Makes the key with this digest, or another revision of it. */
  change(n: number, fields: Partial<Key> = {}): void {
    const before = this.keys.get(n);
    if (!before && this.#owners.has(n)) return;
    const digest = { algorithm: 'sha256', pepperVersion: 0, bytes: DIGESTS[n] ?? Buffer.alloc(32) } as const;
    const after = before ? { ...before, ...fields, revision: before.revision + 1 } : aKey({ digest, ...fields });
    this.keys.set(n, after);
    this.#owners.set(n, after.keyId);
    this.cache.keyChanged(after);
    this.cache.organizationChanged(this.organization);
  }

  suspend(suspended: boolean): void {
    this.organization = { ...this.organization, suspended, revision: this.organization.revision + 1 };
    this.cache.organizationChanged(this.organization);
  }

  /** The digest has this form from now on. */
  move(from: number, to: number): void {
    const key = this.keys.get(from);
    if (!key) return;
    if ((this.#owners.get(to) ?? key.keyId) !== key.keyId) return;
    this.#owners.set(to, key.keyId);
    this.keys.delete(from);
    this.keys.set(to, { ...key, digest: { ...key.digest, bytes: DIGESTS[to] ?? Buffer.alloc(32) } });
    this.cache.digestMoved(key.keyId);
  }

  /** Changes without telling, and then says that anything may have changed. */
  loseSight(n: number): void {
    const key = this.keys.get(n);
    if (key) this.keys.set(n, { ...key, revision: key.revision + 1 });
    this.organization = { ...this.organization, revision: this.organization.revision + 1, suspended: n === 1 };
    this.cache.allChanged();
  }

  /** Begins to read; what is read is what is stored now. */
  load(n: number) {
    return this.cache.load(placeOf(n), () => {
      this.reads += 1;
      const key = this.keys.get(n);
      // As a store does that spares itself the read of an organization that is known.
      const organization = this.cache.knownOrganization(organizationPath(this.organization)) ?? this.organization;
      const found: FoundKey | undefined = key && { key, organization };
      return new Promise((resolve) => this.#reads.push(() => resolve(found)));
    });
  }

  /** Reads what is stored now, at once. */
  fill(n: number) {
    const key = this.keys.get(n);
    return this.cache.fill(placeOf(n), key && { key, organization: this.organization });
  }

  /** Lets the oldest read arrive. */
  async arrive(): Promise<void> {
    this.#reads.shift()?.();
    await new Promise((resolve) => setImmediate(resolve));
  }

  async know(n: number): Promise<void> {
    const loading = this.load(n);
    await this.arrive();
    await loading;
  }

  /** What is known of a digest, against what is stored. */
  judge(n: number): string {
    const known = this.cache.find(placeOf(n));
    const key = this.keys.get(n);
    if (known === undefined) return 'unknown';
    if (known === null) return key ? `denied, and ${key.keyId} is stored` : 'right';
    return this.judgeRecord(n, known);
  }

  judgeRecord(n: number, known: KnownRecord): string {
    const key = this.keys.get(n);
    // A form that the digest had before says the same of the key.
    const stored = key ?? [...this.keys.values()].find(({ keyId }) => keyId === known.key.keyId);
    const isRight =
      stored?.revision === known.key.revision &&
      stored.standing.kind === known.key.standing.kind &&
      known.organization.suspended === this.organization.suspended;
    return isRight ? 'right' : `revision ${known.key.revision}, and ${stored?.revision} is stored`;
  }
}

const step = fc.oneof(
  { weight: 3, arbitrary: fc.record({ do: fc.constant('load' as const), n: fc.nat(3) }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('arrive' as const), n: fc.nat(3) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('fill' as const), n: fc.nat(3) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('change' as const), n: fc.nat(3) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('revoke' as const), n: fc.nat(3) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('suspend' as const), n: fc.nat(1) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('move' as const), n: fc.nat(3) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('reset' as const), n: fc.nat(3) }) },
);

test('whatever changes while records are read, in whatever order they arrive, what is known is what is stored', async () => {
  const schedules = fc.array(step, { minLength: 1, maxLength: 40 });
  let known = 0;
  await fc.assert(
    fc.asyncProperty(schedules, fc.constantFrom(1, 2, 10), async (steps, keysMax) => {
      const world = new World({ keysMax });
      const loads: Promise<unknown>[] = [];
      for (const { do: what, n } of steps) {
        if (what === 'load') {
          loads.push(
            world.load(n).then((record) => {
              if (record) expect(world.judgeRecord(n, record)).toBe('right');
            }),
          );
        } else if (what === 'arrive') await world.arrive();
        else if (what === 'fill') {
          const record = world.fill(n);
          if (record) expect(world.judgeRecord(n, record)).toBe('right');
        } else if (what === 'change') world.change(n);
        else if (what === 'revoke') {
          const by = { type: 'USER', id: 'ada' } as const;
          world.change(n, { standing: { kind: 'revoked', time: new Date(0), by, reason: 'OTHER', detail: '' } });
        } else if (what === 'suspend') world.suspend(n === 1);
        else if (what === 'move') world.move(n, (n + 1) % 4);
        else world.loseSight(n);
        for (const at of [0, 1, 2, 3]) {
          const verdict = world.judge(at);
          expect(verdict).toMatch(/^(unknown|right)$/);
          if (verdict === 'right') known += 1;
        }
        expect(world.cache.size).toBeLessThanOrEqual(keysMax);
      }
      const state = { arrived: false };
      const all = Promise.all(loads).finally(() => (state.arrived = true));
      all.catch(() => undefined);
      while (!state.arrived) await world.arrive();
      await all;
    }),
    { numRuns: 500 },
  );
  expect(known).toBeGreaterThan(200);
});

describe('a record', () => {
  test('is read once for all who ask meanwhile, and then not again', async () => {
    const world = new World();
    world.change(0);
    const loads = [world.load(0), world.load(0), world.load(0)];
    await world.arrive();
    const [one, ...others] = await Promise.all(loads);
    expect(one?.key.keyId).toBe(world.keys.get(0)?.keyId);
    for (const other of others) expect(other).toBe(one);
    expect(world.cache.find(placeOf(0))).toBe(one);
    expect(world.reads).toBe(1);
  });

  test('that could not be read is read again for the next, and who asked is told so', async () => {
    const { cache, clock } = new World();
    await expect(cache.load(placeOf(0), () => Promise.reject(new Error('away')))).rejects.toThrow('away');
    expect(cache.find(placeOf(0))).toBeUndefined();
    expect(clock.monotonicMs()).toBe(0);
    expect(await cache.load(placeOf(0), () => Promise.resolve(undefined))).toBeUndefined();
  });

  test('that was revoked while it was read is answered as revoked', async () => {
    const world = new World();
    world.change(0);
    const loading = world.load(0);
    const by = { type: 'USER', id: 'ada' } as const;
    world.change(0, { standing: { kind: 'revoked', time: new Date(0), by, reason: 'OTHER', detail: '' } });
    await world.arrive();
    expect((await loading)?.key.standing.kind).toBe('revoked');
  });

  test('brings nothing back of its organization, whose other keys are known', async () => {
    const world = new World();
    world.change(0);
    world.change(1);
    await world.know(0);
    const loading = world.load(1);
    world.suspend(true);
    await world.arrive();
    expect((await loading)?.organization.suspended).toBe(true);
    expect([0, 1].map((n) => world.judge(n))).toEqual(['right', 'right']);
  });

  test('makes its organization known, as it was told last, while any key of it is kept', async () => {
    const world = new World();
    const path = organizationPath(acme);
    world.change(0);
    world.suspend(true);
    expect(world.cache.knownOrganization(path)).toBeUndefined();
    await world.know(0);
    expect(world.cache.knownOrganization(path)).toEqual({ ...acme, suspended: true, revision: 2 });
    world.suspend(false);
    expect(world.cache.knownOrganization(path)).toEqual({ ...acme, suspended: false, revision: 3 });
    world.loseSight(0);
    expect(world.cache.knownOrganization(path)).toBeUndefined();
  });

  test('that is known already is not put back by an older one, whoever has read that', async () => {
    const world = new World();
    world.change(0);
    const old = world.keys.get(0);
    await world.know(0);
    world.change(0);
    const read = () => Promise.resolve(old && { key: old, organization: world.organization });
    expect((await world.cache.load(placeOf(0), read))?.key.revision).toBe(2);
    expect(world.judge(0)).toBe('right');
  });

  test('gives its place to a newer one where nobody has asked for it since, and not where somebody has', async () => {
    const world = new World({ keysMax: 2 });
    for (const n of [0, 1, 2]) world.change(n);
    await world.know(0);
    await world.know(1);
    world.cache.find(placeOf(0));
    await world.know(2);
    expect([0, 1, 2].map((n) => world.judge(n))).toEqual(['right', 'unknown', 'right']);
  });
});

describe('that there is no key', () => {
  test('is known for a second, and until one is made', async () => {
    const world = new World();
    await world.know(0);
    await world.know(1);
    expect(world.cache.find(placeOf(0))).toBeNull();
    world.change(0);
    expect(world.cache.find(placeOf(0))).toBeUndefined();
    world.nowMs = 999;
    expect(world.cache.find(placeOf(1))).toBeNull();
    world.nowMs = 1000;
    expect(world.cache.find(placeOf(1))).toBeUndefined();
  });

  test('takes no place of a key, and has few places itself', async () => {
    const world = new World({ keysMax: 1, missesMax: 2 });
    world.change(3);
    for (const n of [3, 0, 1, 2]) await world.know(n);
    expect([3, 0, 1, 2].map((n) => world.judge(n))).toEqual(['right', 'unknown', 'right', 'right']);
  });

  test('is asked again where the key was made while it was looked for', async () => {
    const world = new World();
    const loading = world.load(0);
    world.change(0);
    await world.arrive();
    await world.arrive();
    expect((await loading)?.key.keyId).toBe(world.keys.get(0)?.keyId);
  });
});
