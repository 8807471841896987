import { MongoClient } from 'mongodb';
import { inject } from 'vitest';

import { inOwnDatabase } from '../support/mongodb-store.js';
import { openStoreAt } from '../support/open-store.js';
import { describeStore } from './store.js';

describeStore('mongodb', () => {
  const at = { engine: 'mongodb', uri: inOwnDatabase(inject('mongodbUri')) } as const;
  return Promise.resolve({
    at,
    open: () => openStoreAt(at),
    join: () => openStoreAt(at),
    async [Symbol.asyncDispose]() {
      await using client = new MongoClient(at.uri);
      await client.db().dropDatabase();
    },
  });
});
