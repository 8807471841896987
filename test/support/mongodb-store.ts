/** The MongoDB store as tests of its own use it: each opener is a replica of the service. */
import { randomUUID } from 'node:crypto';

import { systemClock } from '../../src/keys/clock.js';
import { createKey, type CreatedKey } from '../../src/keys/create-key.js';
import type { Keyspace } from '../../src/keys/keyspace.js';
import type { OrganizationRef } from '../../src/keys/organization.js';
import type { Refusal } from '../../src/keys/refusal.js';
import { Secret } from '../../src/keys/secret.js';
import { openMongoStore } from '../../src/store/mongodb/open.js';
import type { Store } from '../../src/store/port.js';
import { acme, aKeyspace, aMutation, askingToCreate, drawToCreate, SOURCE } from './domain.js';
import { Deadline } from '../../src/keys/clock.js';

/** The server's URI with a database of the caller's own in its path. */
export function inOwnDatabase(uri: string): string {
  const own = new URL(uri);
  own.pathname = `/test_${randomUUID().replaceAll('-', '')}`;
  return own.toString();
}

export function openReplica(uri: string, report: (line: string) => void = () => undefined): Promise<Store> {
  return openMongoStore({ uri: new Secret(uri), source: SOURCE, clock: systemClock, report });
}

export function within(ms: number): Deadline {
  return Deadline.after(ms, systemClock);
}

export interface Creating {
  readonly organization?: OrganizationRef;
  readonly name?: string;
  readonly keyspace?: Keyspace;
  readonly requestId?: string;
  readonly deadline?: Deadline;
  /** Called each time that the store runs the rule. */
  readonly onRule?: () => void;
}

/** Creates a key as the service does: what chance gives is drawn once. */
export function create(store: Store, creating: Creating = {}): Promise<CreatedKey | Refusal> {
  const { organization = acme, name = 'ci', keyspace = aKeyspace(), requestId, deadline = within(10_000) } = creating;
  const draw = drawToCreate(keyspace);
  const request = requestId === undefined ? undefined : { method: 'CreateKey', requestId, hash: '0'.repeat(64) };
  const mutation = aMutation({ organization, ...(request && { request }) });
  return store.change(
    { organization, name, ...(request && { request: { caller: mutation.caller, ...request } }) },
    (state) => {
      creating.onRule?.();
      return createKey(state, askingToCreate({ mutation, name }), keyspace, draw);
    },
    deadline,
  );
}
