/** Requests at random, for properties that hold under any sequence of them. */
import { createHash } from 'node:crypto';
import fc from 'fast-check';

import type { Load, Rule } from '../../src/keys/change.js';
import { createKey } from '../../src/keys/create-key.js';
import type { Mutation } from '../../src/keys/event.js';
import type { Expiration } from '../../src/keys/expiration.js';
import { newKeyId } from '../../src/keys/ids.js';
import { importKey } from '../../src/keys/import-key.js';
import { etagOf } from '../../src/keys/key.js';
import type { Keyspace } from '../../src/keys/keyspace.js';
import { etagOfOrganization, type OrganizationRef } from '../../src/keys/organization.js';
import { revokeKey } from '../../src/keys/revoke-key.js';
import { rotateKey } from '../../src/keys/rotate-key.js';
import type { KeySelector } from '../../src/keys/select-key.js';
import { updateKey } from '../../src/keys/update-key.js';
import { updateOrganization } from '../../src/keys/update-organization.js';
import {
  acme,
  aKeyspace,
  aMutation,
  askingToCreate,
  askingToImport,
  askingToRevoke,
  askingToRotate,
  askingToUpdate,
  askingToUpdateOrganization,
  drawToCreate,
  drawToImport,
  drawToRevoke,
  drawToRotate,
  drawToUpdate,
  drawToUpdateOrganization,
  noon,
} from './domain.js';
import type { Model } from './model.js';

const OVERLAP_MAX_MS = 30_000;

/** Of unique names, and with two plans, so that every rule has something to refuse. */
export const strictKeyspace: Keyspace = aKeyspace({
  names: { required: true, unique: true, default: '' },
  overlapMaxMs: OVERLAP_MAX_MS,
  plans: new Map([
    ['small', { name: 'small', keyLimit: 2 }],
    ['large', { name: 'large', keyLimit: 4, requestsPerMinute: 60 }],
  ]),
  defaultPlan: 'small',
});

/** A key of those that are there when the request is made, counted from the newest, or a name. */
interface Which {
  readonly by: 'key_id' | 'name';
  readonly nth: number;
  readonly name: string;
}

type Etag = 'none' | 'right' | 'stale';

export type Step = { readonly atMs: number; readonly requestId: string | undefined } & (
  | { readonly do: 'create'; readonly name: string; readonly ttlMs: number | undefined }
  | { readonly do: 'revoke'; readonly which: Which }
  | {
      readonly do: 'rotate';
      readonly which: Which;
      readonly overlapMs: number | undefined;
      readonly ttlMs: number | undefined;
    }
  | {
      readonly do: 'update';
      readonly which: Which;
      readonly etag: Etag;
      readonly name: string | undefined;
      readonly scopes: readonly string[] | undefined;
      readonly labels: Readonly<Record<string, string>> | undefined;
      /** Null: no end. */
      readonly expireMs: number | null | undefined;
      readonly disabled: boolean | undefined;
    }
  | { readonly do: 'import'; readonly name: string; readonly digest: number; readonly expireMs: number | undefined }
  | {
      readonly do: 'organization';
      readonly etag: Etag;
      readonly plan: string | undefined;
      readonly suspended: boolean | undefined;
    }
);

const maybe = <T>(arbitrary: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> => fc.option(arbitrary, { nil: undefined });
const names = fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f');
const which = fc.record<Which>({ by: fc.constantFrom('key_id', 'name'), nth: fc.nat({ max: 4 }), name: names });
const etag = fc.constantFrom<Etag>('none', 'none', 'none', 'right', 'right', 'stale');
const common = {
  // Time may stand still and run backwards, as wall clocks do.
  atMs: fc.integer({ min: -5000, max: 60_000 }),
  requestId: fc.option(fc.constantFrom('r1', 'r2'), { nil: undefined, freq: 4 }),
};
const ttlMs = maybe(fc.integer({ min: 1, max: 30_000 }));

const aCreate = fc.record({ do: fc.constant('create' as const), ...common, name: names, ttlMs });

export const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 3, arbitrary: aCreate },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('revoke' as const), ...common, which }) },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('rotate' as const),
      ...common,
      which,
      overlapMs: fc.constantFrom(undefined, 0, 1, 5000, OVERLAP_MAX_MS, OVERLAP_MAX_MS + 1),
      ttlMs,
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('update' as const),
      ...common,
      which,
      etag,
      name: maybe(names),
      scopes: maybe(fc.constantFrom([], ['read'], ['read', 'write'])),
      labels: maybe(fc.constantFrom({}, { team: 'a' }, { team: 'b', tier: '' })),
      expireMs: fc.constantFrom(undefined, undefined, null, -1, 10_000, 90_000),
      disabled: maybe(fc.boolean()),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('import' as const),
      ...common,
      name: names,
      digest: fc.nat({ max: 3 }),
      expireMs: maybe(fc.integer({ min: -5000, max: 90_000 })),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('organization' as const),
      ...common,
      etag,
      plan: fc.constantFrom(undefined, '', 'small', 'large', 'large', 'large', 'none'),
      // Suspended, most rules only refuse.
      suspended: fc.constantFrom(undefined, false, false, false, true),
    }),
  },
);

/** Draws what the step needs, once: the rule may then run on several states. */
export function toRequest(
  step: Step,
  model: Model,
  organization: OrganizationRef = acme,
): { load: Omit<Load, 'organization'>; rule: Rule<unknown> } {
  const now = new Date(noon.getTime() + step.atMs);
  const { requestId } = step;
  const { atMs: _, ...body } = step;
  const request = requestId === undefined ? undefined : { method: step.do, requestId, hash: JSON.stringify(body) };
  const mutation: Mutation = aMutation({ organization, ...(request && { request }) });
  const repeat = request && {
    request: { caller: mutation.caller, method: request.method, requestId: request.requestId },
  };

  switch (step.do) {
    case 'create': {
      const ask = askingToCreate({ mutation, name: step.name, expiration: toExpiration(step.ttlMs) });
      const draw = drawToCreate(strictKeyspace, { now });
      return {
        load: { name: step.name, ...repeat },
        rule: (state) => createKey(state, ask, strictKeyspace, draw),
      };
    }
    case 'revoke': {
      const ask = askingToRevoke({ mutation, selector: toSelector(step.which, model) });
      const draw = drawToRevoke({ now });
      return {
        load: { selector: ask.selector, withLineage: step.which.by === 'name', ...repeat },
        rule: (state) => revokeKey(state, ask, draw),
      };
    }
    case 'rotate': {
      const { overlapMs } = step;
      const ask = askingToRotate({
        mutation,
        selector: toSelector(step.which, model),
        expiration: toExpiration(step.ttlMs),
        ...(overlapMs !== undefined && { overlapMs }),
      });
      const draw = drawToRotate(strictKeyspace, { now });
      return {
        load: { selector: ask.selector, withLineage: true, ...repeat },
        rule: (state) => rotateKey(state, ask, strictKeyspace, draw),
      };
    }
    case 'update': {
      const { name, scopes, labels, expireMs, disabled } = step;
      const selector = toSelector(step.which, model);
      const key = selector.by === 'key_id' ? model.keys.get(selector.keyId) : undefined;
      const ask = askingToUpdate({
        mutation,
        selector,
        etag: toEtag(step.etag, key && etagOf(key)),
        ...(name !== undefined && { name }),
        ...(scopes && { scopes }),
        ...(labels && { labels }),
        ...(expireMs !== undefined && { expireTime: expireMs === null ? null : new Date(noon.getTime() + expireMs) }),
        ...(disabled !== undefined && { disabled }),
      });
      const draw = drawToUpdate({ now });
      return {
        load: { selector, ...(name !== undefined && { name }), ...repeat },
        rule: (state) => updateKey(state, ask, strictKeyspace, draw),
      };
    }
    case 'import': {
      const { name, expireMs } = step;
      const bytes = createHash('sha256').update(`${organization.organizationId} ${step.digest}`).digest();
      const ask = askingToImport({
        mutation,
        name,
        digest: { algorithm: 'sha256', pepperVersion: 0, bytes },
        ...(expireMs !== undefined && { expireTime: new Date(noon.getTime() + expireMs) }),
      });
      const draw = drawToImport({ now });
      return {
        load: { name, digests: [bytes] },
        rule: (state) => importKey(state, ask, strictKeyspace, draw),
      };
    }
    case 'organization': {
      const { plan, suspended } = step;
      const ask = askingToUpdateOrganization({
        mutation,
        etag: toEtag(step.etag, etagOfOrganization(model.organization)),
        ...(plan !== undefined && { plan }),
        ...(suspended !== undefined && { suspended }),
      });
      const draw = drawToUpdateOrganization({ now });
      return { load: { ...repeat }, rule: (state) => updateOrganization(state, ask, strictKeyspace, draw) };
    }
  }
}

function toSelector({ by, nth, name }: Which, model: Model): KeySelector {
  if (by === 'name') return { by, name };
  return { by, keyId: [...model.keys.keys()].at(-1 - nth) ?? newKeyId() };
}

function toExpiration(ttlMs: number | undefined): Expiration {
  return ttlMs === undefined ? { kind: 'default' } : { kind: 'after', ttlMs };
}

function toEtag(etag: Etag, right = ''): string {
  switch (etag) {
    case 'none':
      return '';
    case 'right':
      return right;
    case 'stale':
      return '"stale"';
  }
}
