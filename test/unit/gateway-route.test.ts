/** What a gateway's configuration says of a route: understood whole, or refused with what to do. */
import { expect, test } from 'vitest';

import { readRoute } from '../../src/gateway/route.js';
import type { HttpRules } from '../../src/keys/keyspace.js';
import { aKeyspace } from '../support/domain.js';

const http: HttpRules = {
  credential: { kind: 'bearer', header: 'authorization', schemes: ['bearer'] },
  refusal: { status: 401, contentType: 'text/plain', body: '' },
  rateLimitHeaders: 'standard',
};
const web = { ...aKeyspace({ name: 'web' }), http };
const keyspaces = new Map([web, aKeyspace()].map((keyspace) => [keyspace.name, keyspace]));

const read = (fields: Record<string, string>) =>
  readRoute(new Map(Object.entries(fields)), 'route', (name) => keyspaces.get(name));

test('a keyspace alone asks for nothing more', () => {
  expect(read({ keyspace: 'web' })).toEqual({ keyspace: web, terms: { requiredScopes: [] } });
});

test('an organization and scopes are asked for as they are given', () => {
  expect(read({ keyspace: 'web', organization_id: 'acme', required_scopes: 'write read' })).toEqual({
    keyspace: web,
    terms: { organizationId: 'acme', requiredScopes: ['read', 'write'] },
  });
});

test.each([
  [{}, 'KEYSPACE_REQUIRED', 'route.keyspace'],
  [{ keyspace: '' }, 'KEYSPACE_REQUIRED', 'route.keyspace'],
  [{ organization_id: 'acme' }, 'KEYSPACE_REQUIRED', 'route.keyspace'],
  [{ keyspace: 'nothing' }, 'KEYSPACE_NOT_FOUND', undefined],
  [{ keyspace: 'shop' }, 'HTTP_RULES_MISSING', undefined],
  [{ keyspace: 'web', organization_id: '' }, 'ORGANIZATION_ID_INVALID', 'organization_id'],
  [{ keyspace: 'web', required_scopes: '' }, 'SCOPES_INVALID', 'route.required_scopes[0]'],
  [{ keyspace: 'web', required_scopes: 'read  write' }, 'SCOPES_INVALID', 'route.required_scopes[1]'],
  [{ keyspace: 'web', required_scopes: 'read,write' }, 'SCOPES_INVALID', 'route.required_scopes[0]'],
  [{ keyspace: 'web', required_scope: 'read' }, 'ROUTE_FIELD_UNKNOWN', 'route'],
  [{ keyspace: 'web', Organization_id: 'acme' }, 'ROUTE_FIELD_UNKNOWN', 'route'],
])('%o is refused: a demand that is misspelt or empty must not become none', (fields, refused, field) => {
  expect(read(fields)).toMatchObject({ refused, ...(field !== undefined && { field }) });
});
