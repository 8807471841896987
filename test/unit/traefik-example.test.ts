/** Traefik's example, which no test runs: what it refers to exists. */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { parse } from 'yaml';

import { parseKeyspaces } from '../../src/config/keyspaces.js';

const read = (path: string) => readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8');

interface Dynamic {
  http: {
    middlewares: Record<string, { forwardAuth?: { address: string; authResponseHeadersRegex: string } }>;
    routers: Record<string, { entryPoints: string[]; middlewares: string[]; service: string }>;
    services: Record<string, unknown>;
  };
}

test('every product is checked by its keyspace, on an entry point of its own, before anything else but its headers', () => {
  const { entryPoints } = parse(read('examples/traefik/traefik.yaml')) as { entryPoints: object };
  const { http } = parse(read('examples/traefik/dynamic.yaml')) as Dynamic;
  const keyspaces = parseKeyspaces(read('config/keyspaces.yaml'));
  if (Array.isArray(keyspaces)) throw new Error('config/keyspaces.yaml is wrong');
  expect(Object.keys(http.routers).sort()).toEqual([...keyspaces.keys()].sort());
  expect(Object.keys(entryPoints)).toEqual(Object.keys(http.routers));
  for (const [product, router] of Object.entries(http.routers)) {
    expect(router.entryPoints).toEqual([product]);
    expect(router.middlewares).toEqual(['own-headers', product, 'no-credential']);
    for (const name of router.middlewares) expect(http.middlewares).toHaveProperty(name);
    expect(http.services).toHaveProperty(router.service);
    const check = http.middlewares[product]?.forwardAuth;
    expect(new URL(check?.address ?? '').search).toBe(`?keyspace=${product}`);
    // Go takes the flag within the pattern.
    const told = new RegExp(check?.authResponseHeadersRegex.replace('(?i)', '') ?? '', 'i');
    for (const name of ['X-Keyreeve-Key-Id', 'X_keyreeve_scopes', 'X.keyreeve.organization'])
      expect(name).toMatch(told);
    expect('Authorization').not.toMatch(told);
  }
});
