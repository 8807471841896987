import { systemClock } from '../../src/keys/clock.js';
import { Secret } from '../../src/keys/secret.js';
import { openMongoStore } from '../../src/store/mongodb/open.js';
import type { Store } from '../../src/store/port.js';
import { openSqliteStore } from '../../src/store/sqlite/open.js';
import { SOURCE } from './domain.js';

/** Where a store lies, in words that another process can be told. */
export type StorePlace =
  | { readonly engine: 'sqlite'; readonly dataDir: string }
  /** With the database in its path. */
  | { readonly engine: 'mongodb'; readonly uri: string };

/** @param source of its events */
export async function openStoreAt(place: StorePlace, source = SOURCE): Promise<Store> {
  const options = { source, clock: systemClock, report: () => undefined };
  switch (place.engine) {
    case 'sqlite':
      return openSqliteStore({ dataDir: place.dataDir, ...options });
    case 'mongodb':
      return openMongoStore({ uri: new Secret(place.uri), ...options });
  }
}
