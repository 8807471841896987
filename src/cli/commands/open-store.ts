import { access } from 'node:fs/promises';
import { join } from 'node:path';

import type { Settings } from '../../config/settings.js';
import { sourceOf } from '../../keys/chain.js';
import { systemClock } from '../../keys/clock.js';
import { openMongoStore } from '../../store/mongodb/open.js';
import type { Store } from '../../store/port.js';
import { DATABASE_FILE, InUse, openSqliteStore } from '../../store/sqlite/open.js';
import { exitCodes } from '../exit-codes.js';
import { CommandFault } from '../faults.js';

/**
 * Opens the service's store beside the service, or instead of it.
 * @param whileServed what helps where the service itself has it, which is SQLite's: completes "if that is the service, …"
 * @throws CommandFault that says why it cannot be opened; one that is not there is not made
 */
export async function openStore({ store, installation }: Settings, whileServed = 'stop it first'): Promise<Store> {
  const options = { source: sourceOf(installation), clock: systemClock, report: () => undefined };
  try {
    if (store.kind === 'mongodb') return await openMongoStore({ uri: store.uri, ...options });
    await access(join(store.dataDir, DATABASE_FILE));
    return openSqliteStore({ dataDir: store.dataDir, ...options });
  } catch (error) {
    throw new CommandFault(exitCodes.unavailable, whyNot(error, whileServed), { cause: error });
  }
}

function whyNot(error: unknown, whileServed: string): string {
  if (!(error instanceof Error)) return 'the store cannot be opened';
  if ('code' in error && error.code === 'ENOENT')
    return 'there is no store in the data folder: check KEYREEVE_DATA_DIR';
  if (!(error instanceof InUse)) return error.message;
  return `${error.message}; if that is the service, ${whileServed}`;
}
