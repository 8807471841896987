/** A replica that keeps records in memory, in the test's own process. */
import { systemClock } from '../../src/keys/clock.js';
import type { VerifiableOrganization } from '../../src/keys/organization.js';
import { Secret } from '../../src/keys/secret.js';
import { openMongoStore } from '../../src/store/mongodb/open.js';
import type { Follower, Following, Store } from '../../src/store/port.js';
import { SOURCE } from './domain.js';
import { within } from './mongodb-store.js';

export interface LeasedReplica extends AsyncDisposable {
  readonly store: Store;
  readonly following: Following;
  /** What it was told, in order. */
  readonly told: readonly Told[];
  /** What it says that it knows of organizations, by their paths. */
  readonly known: Map<string, VerifiableOrganization>;
  /** Resolves once it was told of something like that. */
  hears(what: Partial<Told>): Promise<void>;
  /** Resolves once it may answer from memory, or may not. */
  comesTo(holds: boolean): Promise<void>;
}

export interface Told {
  readonly kind: 'key' | 'digest' | 'organization' | 'all';
  readonly keyId?: string;
  readonly standing?: string;
  readonly suspended?: boolean;
  readonly revision?: number;
}

const LOOK_MS = 5;
const WAIT_MS_MAX = 20_000;

export async function openLeased(uri: string, leaseMs: number): Promise<LeasedReplica> {
  const store = await openMongoStore({
    uri: new Secret(uri),
    source: SOURCE,
    clock: systemClock,
    report: () => undefined,
    leaseMs,
  });
  const told: Told[] = [];
  const known = new Map<string, VerifiableOrganization>();
  const follower: Follower = {
    keyChanged: ({ keyId, standing, revision }) => told.push({ kind: 'key', keyId, standing: standing.kind, revision }),
    digestMoved: (keyId) => told.push({ kind: 'digest', keyId }),
    organizationChanged: ({ suspended, revision }) => told.push({ kind: 'organization', suspended, revision }),
    allChanged: () => told.push({ kind: 'all' }),
    knownOrganization: (path) => known.get(path),
  };
  const following = store.follow(follower);
  const until = async (condition: () => boolean) => {
    const deadline = within(WAIT_MS_MAX);
    while (!condition()) {
      if (deadline.passed) throw new Error(`it does not come about; told: ${JSON.stringify(told)}`);
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    }
  };
  return {
    store,
    following,
    told,
    known,
    hears: (what) =>
      until(() => told.some((one) => Object.entries(what).every(([name, value]) => one[name as keyof Told] === value))),
    comesTo: (holds) => until(() => following.holds() === holds),
    async [Symbol.asyncDispose]() {
      await following[Symbol.asyncDispose]();
      await store[Symbol.asyncDispose]();
    },
  };
}
