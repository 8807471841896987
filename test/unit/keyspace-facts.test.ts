import { expect, test } from 'vitest';

import { contradictions, keyspaceFactsOf } from '../../src/keys/keyspace-facts.js';
import type { Keyspace } from '../../src/keys/keyspace.js';
import { aKeyspace } from '../support/domain.js';

const shop = aKeyspace();
const stored = (keyspace: Keyspace, hasUnrevokedKeys = true) => [
  { ...keyspaceFactsOf(keyspace), hasUnrevokedKeys, plansInUse: [] },
];
const configured = (...keyspaces: Keyspace[]) => new Map(keyspaces.map((keyspace) => [keyspace.name, keyspace]));

test('a keyspaces file that fits what is stored contradicts nothing, and neither does a new keyspace', () => {
  expect(contradictions(stored(shop), configured(shop))).toEqual([]);
  expect(contradictions([], configured(shop))).toEqual([]);
});

test('a keyspace that is gone or changed while it has unrevoked keys is a contradiction, a line for each change', () => {
  expect(contradictions(stored(shop), configured())).toEqual([
    'keyspace shop is gone, but unrevoked keys of it are stored; restore it, or revoke those keys first',
  ]);
  const changed = aKeyspace({
    credential: { kind: 'pair', prefix: 'mart_', bodyLength: 40, display: 'last_four' },
    names: { required: true, unique: true, default: '' },
  });
  expect(contradictions(stored(shop), configured(changed))).toEqual([
    'keyspace shop has credential pair, but unrevoked keys were made with bearer; restore it, or revoke those keys first',
    'keyspace shop has prefix "mart_", but unrevoked keys were made with "shop_"; restore it, or revoke those keys first',
    'keyspace shop has body_length 40, but unrevoked keys were made with 49; restore it, or revoke those keys first',
    'keyspace shop has names.unique true, but unrevoked keys were made with false; restore it, or revoke those keys first',
  ]);
});

test('a keyspace whose keys are all revoked may change and go', () => {
  expect(contradictions(stored(shop, false), configured())).toEqual([]);
});

test('a plan that organizations have may not go while their keyspace stays, whether or not keys rely on it', () => {
  const inUse = [{ ...keyspaceFactsOf(shop), hasUnrevokedKeys: false, plansInUse: ['free', 'gold', 'trial'] }];
  expect(contradictions(inUse, configured(shop))).toEqual(
    ['gold', 'trial'].map(
      (plan) => `keyspace shop has no plan ${plan}, but organizations have it; restore it, or give them another`,
    ),
  );
  expect(contradictions(inUse, configured())).toEqual([]);
});

test('unique names may become free', () => {
  const unique = aKeyspace({ names: { required: true, unique: true, default: '' } });
  expect(contradictions(stored(unique), configured(shop))).toEqual([]);
});
