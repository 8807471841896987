import type { Clock } from '../keys/clock.js';
import { StoreFault } from './faults.js';
import type { Store } from './port.js';

/** The port's calls by name; `read` is a follower's, of what it keeps in memory from then on. */
export const STORE_OPERATIONS = [
  'change',
  'findByDigest',
  'read',
  'findOrganization',
  'selectKeys',
  'listKeys',
  'countExpired',
  'listEvents',
  'recordUses',
  'moveDigest',
  'countDigests',
  'hasDigests',
  'takeBudget',
  'readBudget',
  'pepperFingerprints',
  'rememberPeppers',
  'keyspaceFacts',
  'rememberKeyspaces',
  'enforce',
  'ping',
] as const;
export type StoreOperation = (typeof STORE_OPERATIONS)[number];

export const STORE_TROUBLES = ['unavailable', 'contention', 'other'] as const;
/** Why a call came to no answer: a `StoreFault`, by its kind, or what nobody foresaw. */
export type StoreTrouble = (typeof STORE_TROUBLES)[number];

export interface StoreObserver {
  /** A call has ended, after so long; `trouble` where it came to no answer. */
  ended(operation: StoreOperation, ms: number, trouble?: StoreTrouble): void;
  /** How long somebody waited until what was taken away was so everywhere; `complete`: and it was. */
  enforced(ms: number, complete: boolean): void;
}

/** The store, its calls observed. What a verification asks that waits for nothing, `holds` and `readNow`, is as it was. */
export function metered(store: Store, observer: StoreObserver, clock: Clock): Store {
  async function timed<A>(operation: StoreOperation, call: () => Promise<A>): Promise<A> {
    const begunMs = clock.monotonicMs();
    try {
      const answer = await call();
      observer.ended(operation, clock.monotonicMs() - begunMs);
      return answer;
    } catch (error) {
      observer.ended(operation, clock.monotonicMs() - begunMs, error instanceof StoreFault ? error.kind : 'other');
      throw error;
    }
  }
  const through =
    <Arguments extends unknown[], A>(operation: StoreOperation, call: (...given: Arguments) => Promise<A>) =>
    (...given: Arguments): Promise<A> =>
      timed(operation, () => call(...given));
  return {
    ...store,
    change: (load, rule, deadline) => timed('change', () => store.change(load, rule, deadline)),
    findByDigest: through('findByDigest', (...given) => store.findByDigest(...given)),
    findOrganization: through('findOrganization', (...given) => store.findOrganization(...given)),
    selectKeys: through('selectKeys', (...given) => store.selectKeys(...given)),
    listKeys: through('listKeys', (...given) => store.listKeys(...given)),
    countExpired: through('countExpired', (...given) => store.countExpired(...given)),
    listEvents: through('listEvents', (...given) => store.listEvents(...given)),
    recordUses: through('recordUses', (...given) => store.recordUses(...given)),
    moveDigest: through('moveDigest', (...given) => store.moveDigest(...given)),
    countDigests: through('countDigests', (...given) => store.countDigests(...given)),
    hasDigests: through('hasDigests', (...given) => store.hasDigests(...given)),
    takeBudget: through('takeBudget', (...given) => store.takeBudget(...given)),
    readBudget: through('readBudget', (...given) => store.readBudget(...given)),
    pepperFingerprints: through('pepperFingerprints', (...given) => store.pepperFingerprints(...given)),
    rememberPeppers: through('rememberPeppers', (...given) => store.rememberPeppers(...given)),
    keyspaceFacts: through('keyspaceFacts', (...given) => store.keyspaceFacts(...given)),
    rememberKeyspaces: through('rememberKeyspaces', (...given) => store.rememberKeyspaces(...given)),
    ping: through('ping', (...given) => store.ping(...given)),
    async enforce(deadline) {
      const begunMs = clock.monotonicMs();
      const enforcement = await timed('enforce', () => store.enforce(deadline));
      observer.enforced(clock.monotonicMs() - begunMs, enforcement.complete);
      return enforcement;
    },
    follow(follower) {
      const following = store.follow(follower);
      return { ...following, read: through('read', (...given) => following.read(...given)) };
    },
  };
}
