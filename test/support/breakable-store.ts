import type { Store } from '../../src/store/port.js';

type StoreCall = Extract<keyof Store, string>;

/** What a store does in the place of its work, for as long as a test wants it to. */
export interface Breakage {
  /** Called before each call of the store; what it throws, the store throws, and what it awaits holds the call up. */
  before?: (call: StoreCall) => Promise<void>;
}

/** The store, with every call that the server makes going through the breakage first. */
export function breakable(store: Store, breakage: Breakage): Store {
  const through =
    <Arguments extends unknown[], Answer>(name: StoreCall, call: (...given: Arguments) => Promise<Answer>) =>
    async (...given: Arguments): Promise<Answer> => {
      await breakage.before?.(name);
      return call(...given);
    };
  return {
    ...store,
    change: async (load, rule, deadline) => {
      await breakage.before?.('change');
      return store.change(load, rule, deadline);
    },
    enforce: through('enforce', (...given) => store.enforce(...given)),
    follow: (follower) => {
      // A call that may be held up is one that has to be waited for.
      const { readNow: _, ...following } = store.follow(follower);
      // What is read to be kept in memory is read by digest as well.
      return { ...following, read: through('findByDigest', (...given) => following.read(...given)) };
    },
    findByDigest: through('findByDigest', (...given) => store.findByDigest(...given)),
    findOrganization: through('findOrganization', (...given) => store.findOrganization(...given)),
    selectKeys: through('selectKeys', (...given) => store.selectKeys(...given)),
    listKeys: through('listKeys', (...given) => store.listKeys(...given)),
    countExpired: through('countExpired', (...given) => store.countExpired(...given)),
    listEvents: through('listEvents', (...given) => store.listEvents(...given)),
    recordUses: through('recordUses', (...given) => store.recordUses(...given)),
    moveDigest: through('moveDigest', (...given) => store.moveDigest(...given)),
    hasDigests: through('hasDigests', (...given) => store.hasDigests(...given)),
    countDigests: through('countDigests', (...given) => store.countDigests(...given)),
    takeBudget: through('takeBudget', (...given) => store.takeBudget(...given)),
    readBudget: through('readBudget', (...given) => store.readBudget(...given)),
    pepperFingerprints: through('pepperFingerprints', (...given) => store.pepperFingerprints(...given)),
    rememberPeppers: through('rememberPeppers', (...given) => store.rememberPeppers(...given)),
    keyspaceFacts: through('keyspaceFacts', (...given) => store.keyspaceFacts(...given)),
    rememberKeyspaces: through('rememberKeyspaces', (...given) => store.rememberKeyspaces(...given)),
    ping: through('ping', (...given) => store.ping(...given)),
  };
}

/** Holds up every call of the store but `ping`, until it is released. */
export function holdUp(breakage: Breakage): { reached: Promise<void>; release: () => void } {
  let release: () => void = () => undefined;
  const released = new Promise<void>((resolve) => {
    release = resolve;
  });
  const reached = new Promise<void>((resolve) => {
    breakage.before = (name) => {
      if (name === 'ping') return Promise.resolve();
      resolve();
      return released;
    };
  });
  return { reached, release };
}
