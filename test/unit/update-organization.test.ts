import { describe, expect, test } from 'vitest';

import type { CloudEvent } from '../../src/keys/chain.js';
import type { Change } from '../../src/keys/change.js';
import { createKey } from '../../src/keys/create-key.js';
import type { Plan } from '../../src/keys/keyspace.js';
import { etagOfOrganization, type Organization } from '../../src/keys/organization.js';
import { isRefusal, type Refusal } from '../../src/keys/refusal.js';
import { type UpdateOrganization, updateOrganization } from '../../src/keys/update-organization.js';
import {
  aKeyspace,
  aMutation,
  askingToCreate,
  askingToUpdateOrganization,
  drawToCreate,
  drawToUpdateOrganization,
  noon,
} from '../support/domain.js';
import { Model } from '../support/model.js';

const plans: Plan[] = [
  { name: 'free', keyLimit: 1, requestsPerMinute: 60 },
  { name: 'pro', keyLimit: 3, requestsPerMinute: 120 },
  { name: 'fast', keyLimit: 1, requestsPerMinute: 300 },
  { name: 'boundless' },
];
const keyspace = aKeyspace({ plans: new Map(plans.map((plan) => [plan.name, plan])) });
const later = (ms: number): Date => new Date(noon.getTime() + ms);

function tryUpdate(
  model: Model,
  fields: Partial<UpdateOrganization>,
  now = noon,
): { answer: Organization | Refusal; change?: Change<Organization> } {
  const ask = askingToUpdateOrganization(fields);
  const draw = drawToUpdateOrganization({ now });
  const { caller, request } = ask.mutation;
  let change: Change<Organization> | undefined;
  const answer = model.change({ ...(request && { request: { caller, ...request } }) }, (state) => {
    const decided = updateOrganization(state, ask, keyspace, draw);
    if (!isRefusal(decided)) change = decided;
    return decided;
  });
  return { answer, ...(change && { change }) };
}

function update(...given: Parameters<typeof tryUpdate>): { organization: Organization; change: Change<Organization> } {
  const { answer, change } = tryUpdate(...given);
  if (isRefusal(answer) || !change) throw new Error('refused');
  return { organization: answer, change };
}

function create(model: Model): unknown {
  const answer = model.change({ name: 'ci' }, (state) =>
    createKey(state, askingToCreate(), keyspace, drawToCreate(keyspace)),
  );
  return isRefusal(answer) ? answer : 'created';
}

function factsOf(model: Model): Pick<CloudEvent['data'], 'before' | 'after'> {
  const { before, after } = (JSON.parse(model.events.at(-1)?.cloudEvent ?? '') as CloudEvent).data;
  return { ...(before && { before }), ...(after && { after }) };
}

test('what is named changes, with one event about the organization itself, and the answer is what is stored', () => {
  const model = new Model();
  const { organization } = update(model, { plan: 'pro', suspended: true }, later(5));
  const stored = { plan: 'pro', suspended: true, settingsRevision: 1, createTime: later(5), updateTime: later(5) };
  expect(organization).toMatchObject(stored);
  expect(model.organization).toMatchObject(stored);
  expect(model.events).toMatchObject([{ type: 'organization.updated', keyId: '' }]);
  const envelope = JSON.parse(model.events[0]?.cloudEvent ?? '') as CloudEvent;
  expect(envelope.subject).toBe('shop/acme');
  expect(envelope.data).not.toHaveProperty('key');
  expect(factsOf(model)).toEqual({
    before: { plan: 'free', suspended: false },
    after: { plan: 'pro', suspended: true },
  });
  update(model, { suspended: false });
  expect(factsOf(model)).toEqual({ before: { suspended: true }, after: { suspended: false } });
  expect(model.organization).toMatchObject({ plan: 'pro', suspended: false, settingsRevision: 2 });
});

test('the times that are answered are those that are stored, also where the clock was set back', () => {
  const model = new Model();
  update(model, { plan: 'pro' }, later(100));
  const { organization } = update(model, { plan: 'free' }, noon);
  for (const one of [organization, model.organization]) {
    expect(one).toMatchObject({ createTime: later(100), updateTime: later(100) });
  }
});

test('a plan that the keyspace does not have is refused, and nothing changes', () => {
  const model = new Model();
  for (const plan of ['none', 'Free', 'toString']) {
    expect(tryUpdate(model, { plan, suspended: true }).answer).toEqual({
      refused: 'PLAN_UNKNOWN',
      field: 'organization.plan',
      message: 'organization.plan must be one of free, pro, fast, boundless',
    });
  }
  expect(model.organization).toMatchObject({ sequence: 0, revision: 0, suspended: false });
});

test('what is as it was asked to be makes no event and no new etag: suspending twice is suspending once', () => {
  const model = new Model();
  const first = update(model, { suspended: true, plan: 'pro' }).organization;
  for (const fields of [{ suspended: true }, { plan: 'pro' }, { plan: 'pro', suspended: true }, {}]) {
    const { organization, change } = update(model, fields, later(9));
    expect(change).toMatchObject({ widens: false, events: [], put: [] });
    expect(change).not.toHaveProperty('settings');
    expect(etagOfOrganization(organization)).toBe(etagOfOrganization(first));
  }
  expect(model.events).toHaveLength(1);
});

test('naming the plan that holds by default sets it for good, and an empty one follows the default again', () => {
  const model = new Model();
  const { change } = update(model, { plan: 'free' });
  expect(model.organization.plan).toBe('free');
  expect(change.widens).toBe(false);
  expect(factsOf(model)).toEqual({ before: { plan: 'free' }, after: { plan: 'free' } });
  expect(update(model, { plan: 'free' }).change.events).toEqual([]);
  update(model, { plan: 'pro' });
  update(model, { plan: '' });
  expect(model.organization).not.toHaveProperty('plan');
  expect(factsOf(model)).toEqual({ before: { plan: 'pro' }, after: { plan: 'free' } });
  expect(update(model, { plan: '' }).change.events).toEqual([]);
});

test('a smaller plan touches no key and refuses new ones until there is room', () => {
  const model = new Model();
  update(model, { plan: 'pro' });
  for (const expected of ['created', 'created', 'created']) expect(create(model)).toBe(expected);
  const keys = new Map(model.keys);
  update(model, { plan: 'free' });
  expect(model.keys).toEqual(keys);
  expect(model.organization.keyCount).toBe(3);
  expect(create(model)).toEqual({ refused: 'KEY_LIMIT_REACHED', limit: 1, plan: 'free' });
  update(model, { plan: 'boundless' });
  expect(create(model)).toBe('created');
});

test('a suspended organization gets no key, and does again once it is not', () => {
  const model = new Model();
  update(model, { suspended: true });
  expect(create(model)).toEqual({ refused: 'ORGANIZATION_SUSPENDED' });
  update(model, { suspended: false });
  expect(create(model)).toBe('created');
});

test('keys that come and go leave the etag, settings move it', () => {
  const model = new Model();
  const etag = etagOfOrganization(model.organization);
  create(model);
  expect(etagOfOrganization(model.organization)).toBe(etag);
  expect(update(model, { etag, plan: 'pro' }).organization.plan).toBe('pro');
  expect(tryUpdate(model, { etag, plan: 'free' }).answer).toEqual({ refused: 'ETAG_MISMATCH' });
  expect(tryUpdate(model, { etag }).answer).toEqual({ refused: 'ETAG_MISMATCH' });
  expect(model.organization).toMatchObject({ plan: 'pro', settingsRevision: 1 });
});

test('it widens where a suspension ends or any limit grows, and not where none does', () => {
  const widens = (first: Partial<UpdateOrganization>, second: Partial<UpdateOrganization>) => {
    const model = new Model();
    update(model, first);
    return update(model, second).change.widens;
  };
  expect(widens({ suspended: true }, { suspended: false })).toBe(true);
  expect(widens({ plan: 'free' }, { plan: 'pro' })).toBe(true);
  expect(widens({ plan: 'free' }, { plan: 'fast' })).toBe(true);
  // Faster for fewer keys.
  expect(widens({ plan: 'pro' }, { plan: 'fast' })).toBe(true);
  expect(widens({ plan: 'pro' }, { plan: 'boundless' })).toBe(true);
  expect(widens({ suspended: true }, { suspended: false, plan: 'free' })).toBe(true);
  expect(widens({}, { suspended: true })).toBe(false);
  expect(widens({ plan: 'boundless' }, { plan: 'pro' })).toBe(false);
  expect(widens({ plan: 'fast' }, { plan: 'free' })).toBe(false);
  expect(widens({ plan: 'pro' }, { plan: '' })).toBe(false);
  expect(widens({ plan: 'pro' }, { plan: 'free', suspended: true })).toBe(false);
});

describe('a repeated request', () => {
  const mutation = (hash = 'h', caller = 'console') =>
    aMutation({ caller, request: { method: 'UpdateOrganization', requestId: 'r1', hash } });

  test('answers the organization as it is now, and changes nothing', () => {
    const model = new Model();
    const ask = { mutation: mutation(), etag: etagOfOrganization(model.organization), plan: 'pro' };
    update(model, ask);
    update(model, { plan: 'free' });
    const { organization, change } = update(model, ask);
    expect(organization).toBe(model.organization);
    expect(organization.plan).toBe('free');
    expect(change).toMatchObject({ widens: false, events: [] });
    expect(model.events).toHaveLength(2);
  });

  test('of one that changed nothing is known, too', () => {
    const model = new Model();
    update(model, { mutation: mutation(), suspended: false });
    update(model, { suspended: true });
    expect(update(model, { mutation: mutation(), suspended: false }).organization.suspended).toBe(true);
  });

  test('with another body is refused, and by another caller is a new request', () => {
    const model = new Model();
    update(model, { mutation: mutation(), plan: 'pro' });
    expect(tryUpdate(model, { mutation: mutation('other'), plan: 'free' }).answer).toEqual({
      refused: 'REQUEST_ID_REUSED',
    });
    expect(update(model, { mutation: mutation('h', 'billing'), plan: 'free' }).organization.plan).toBe('free');
  });
});
