import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { inspect } from 'node:util';
import { describe, expect, test } from 'vitest';
import { stringify } from 'yaml';

import {
  type Caller,
  type CallerGrant,
  type Callers,
  findCaller,
  LOCAL_CALLER,
  type NewCallerToken,
  newCallerToken,
  parseCallers,
} from '../../src/config/callers.js';
import { parseKeyspaces } from '../../src/config/keyspaces.js';
import { formatProblem } from '../../src/config/problems.js';
import { aKeyspace } from '../support/domain.js';

type Fields = Readonly<Record<string, unknown>>;

const keyspaces = new Map(['shop', 'metal'].map((name) => [name, aKeyspace({ name })]));
const digestOf = (token: string): string => createHash('sha256').update(token).digest('hex');
const gateway = {
  name: 'gateway',
  token_sha256: digestOf('krt_gateway'),
  roles: ['verifier'],
  keyspaces: '*',
  organizations: '*',
};

function fileOf(...callers: Fields[]): string {
  return stringify({ callers });
}

function parsed(yamlText: string): Callers {
  const callers = parseCallers(yamlText, keyspaces);
  if (Array.isArray(callers)) throw new Error(callers.map(formatProblem).join('\n'));
  return callers;
}

function problemsOf(yamlText: string): string[] {
  const callers = parseCallers(yamlText, keyspaces);
  return Array.isArray(callers) ? callers.map(formatProblem) : [];
}

function byToken(callers: Callers, token: string, certificateNames: readonly string[] = []): Caller | undefined {
  return findCaller(callers, { token, certificateNames });
}

function byCertificate(callers: Callers, ...certificateNames: string[]): Caller | undefined {
  return findCaller(callers, { certificateNames });
}

function callerOf(fields: Fields): Caller | undefined {
  return byToken(parsed(fileOf({ ...gateway, ...fields })), 'krt_gateway');
}

/** The problems of one caller, their path shortened to what lies within it. */
function faultsOf(fields: Fields): string[] {
  return problemsOf(fileOf({ ...gateway, ...fields })).map((line) => line.replace('callers[0].', ''));
}

describe('a caller', () => {
  test('has what its entry allows, and nothing else', () => {
    expect(callerOf({})).toEqual({
      name: 'gateway',
      roles: new Set(['verifier']),
      keyspaces: 'all',
      organizations: 'all',
      mayAssertActor: false,
      permissions: [],
    });
    expect(
      callerOf({
        roles: ['provisioner', 'auditor', 'admin'],
        keyspaces: ['shop'],
        organizations: ['acme', 'a.b_c:d-e'],
        may_assert_actor: true,
        permissions: ['api_keys.manage'],
      }),
    ).toEqual({
      name: 'gateway',
      roles: new Set(['provisioner', 'auditor', 'admin']),
      keyspaces: new Set(['shop']),
      organizations: new Set(['acme', 'a.b_c:d-e']),
      mayAssertActor: true,
      permissions: ['api_keys.manage'],
    });
  });

  test("may have the '*' for all in a list, alone", () => {
    expect(callerOf({ keyspaces: ['*'], organizations: ['*'] })).toMatchObject({
      keyspaces: 'all',
      organizations: 'all',
    });
    expect(faultsOf({ keyspaces: ['*', 'shop'], organizations: ['acme', '*'] })).toEqual([
      "keyspaces: a list; expected '*' alone, or names alone",
      "organizations: a list; expected '*' alone, or names alone",
    ]);
  });

  test('is found by a name in its certificate, and by nothing near it', () => {
    const { token_sha256: _, ...nameless } = gateway;
    const callers = parsed(
      fileOf(
        { ...nameless, spiffe_id: 'spiffe://example.org/gateway' },
        { ...nameless, name: 'other', dns_name: 'other.example.org' },
      ),
    );
    expect(byCertificate(callers, 'URI:spiffe://example.org/gateway', 'DNS:elsewhere')?.name).toBe('gateway');
    expect(byCertificate(callers, 'DNS:other.example.org')?.name).toBe('other');
    for (const name of ['URI:spiffe://example.org/gateway/x', 'DNS:spiffe://example.org/gateway', 'DNS:example.org']) {
      expect(byCertificate(callers, name)).toBeUndefined();
    }
    expect(byCertificate(callers)).toBeUndefined();
    // Two names of two callers: neither is more right.
    expect(byCertificate(callers, 'URI:spiffe://example.org/gateway', 'DNS:other.example.org')).toBeUndefined();
    // A token that nobody has is not made good by a certificate.
    expect(byToken(callers, 'krt_x', ['DNS:other.example.org'])).toBeUndefined();
  });

  test('of whom its entry states a token and a name in the certificate has to show both', () => {
    const callers = parsed(fileOf({ ...gateway, spiffe_id: 'spiffe://example.org/gateway' }));
    expect(byToken(callers, 'krt_gateway', ['URI:spiffe://example.org/gateway'])?.name).toBe('gateway');
    expect(byToken(callers, 'krt_gateway')).toBeUndefined();
    expect(byToken(callers, 'krt_gateway', ['URI:spiffe://example.org/other'])).toBeUndefined();
    expect(byCertificate(callers, 'URI:spiffe://example.org/gateway')).toBeUndefined();
  });

  test.each([
    ['nothing to be known by', { token_sha256: undefined }, 'token_sha256: missing; expected token_sha256, spiffe_id'],
    ['two names', { spiffe_id: 'spiffe://a/b', dns_name: 'a.b' }, 'spiffe_id or dns_name, not both'],
    ['a SPIFFE id without a path', { spiffe_id: 'spiffe://example.org' }, 'expected a SPIFFE id such as'],
    ['a SPIFFE id that climbs', { spiffe_id: 'spiffe://example.org/../a' }, 'expected a SPIFFE id such as'],
    ['a wildcard', { dns_name: '*.example.org' }, 'expected a host name in lower case, without a wildcard'],
    ['capitals', { dns_name: 'Example.org' }, 'expected a host name in lower case, without a wildcard'],
  ])('with %s is refused', (_, fields, expected) => {
    expect(faultsOf(fields).join()).toContain(expected);
  });

  test('is found by its own token alone', () => {
    const callers = parsed(fileOf(gateway, { ...gateway, name: 'other', token_sha256: digestOf('krt_other') }));
    expect(byToken(callers, 'krt_gateway')?.name).toBe('gateway');
    expect(byToken(callers, 'krt_other')?.name).toBe('other');
    for (const token of ['', 'krt_gatewa', 'krt_gateway ', gateway.token_sha256, 'gateway']) {
      expect(byToken(callers, token)).toBeUndefined();
    }
  });

  test('called local may do everything, and no entry takes its name', () => {
    expect(LOCAL_CALLER).toEqual({
      name: 'local',
      roles: new Set(['verifier', 'provisioner', 'auditor', 'admin']),
      keyspaces: 'all',
      organizations: 'all',
      mayAssertActor: true,
      permissions: [],
    });
    expect(faultsOf({ name: 'local' })).toEqual([
      'name: "local"; expected another name: this is the caller of a server without callers',
    ]);
  });
});

describe('a callers file', () => {
  test('has all its problems reported at once', () => {
    expect(
      problemsOf(
        fileOf(
          { name: 'a b', token_sha256: 'ABC', roles: ['root'], keyspaces: ['nope'], organizations: ['a/b'] },
          { ...gateway, may_assert_actor: 'yes', permissions: ['a b'], organisations: '*' },
          { ...gateway, keyspaces: [] },
          {},
        ),
      ),
    ).toEqual([
      'callers[0].name: "a b"; expected 1 to 64 characters of A-Z a-z 0-9 . _ -',
      "callers[0].token_sha256: [hidden]; expected the token's SHA-256 as 64 digits of 0-9 a-f",
      'callers[0].roles[0]: "root"; expected one of verifier, provisioner, auditor, admin',
      'callers[0].keyspaces[0]: "nope"; expected one of shop, metal',
      'callers[0].organizations[0]: "a/b"; expected 1 to 128 characters of A-Z a-z 0-9 . _ : -',
      'callers[1].may_assert_actor: "yes"; expected true or false',
      'callers[1].permissions[0]: "a b"; expected 1 to 128 printable ASCII characters without spaces',
      'callers[1].organisations: unknown field; expected organizations',
      "callers[2].keyspaces: an empty list; expected '*' or at least one name",
      'callers[3].name: missing; expected 1 to 64 characters of A-Z a-z 0-9 . _ -',
      'callers[3].roles: missing; expected a list of verifier, provisioner, auditor, admin',
      "callers[3].keyspaces: missing; expected '*' or a list of names",
      "callers[3].organizations: missing; expected '*' or a list of names",
      'callers[3].token_sha256: missing; expected token_sha256, spiffe_id or dns_name: how the caller is known',
      'callers[2].name: "gateway"; expected one of its own: callers[1] has it',
      'callers[2].token_sha256: [hidden]; expected one of its own: callers[1] has it',
    ]);
  });

  test('with no callers is no way to let everyone in', () => {
    expect(problemsOf('callers: []')).toEqual([
      'callers: an empty list; expected at least one caller; for none leave KEYREEVE_CALLERS unset',
    ]);
    expect(problemsOf('')).toEqual(['top level: empty; expected a mapping of callers']);
  });

  test('takes no caller without a role', () => {
    expect(faultsOf({ roles: [] })).toEqual([
      'roles: an empty list; expected at least one of verifier, provisioner, auditor, admin',
    ]);
  });

  test('takes no digest of an empty token, which everyone knows', () => {
    expect(faultsOf({ token_sha256: digestOf('') })).toEqual([
      'token_sha256: [hidden]; expected the SHA-256 of a token: this is the one of an empty text',
    ]);
  });

  test('may name any keyspace where the keyspaces are not known, being broken themselves', () => {
    expect(Array.isArray(parseCallers(fileOf({ ...gateway, keyspaces: ['other'] }), undefined))).toBe(false);
    const problems = parseCallers(fileOf({ ...gateway, keyspaces: ['Other'] }), undefined);
    expect(Array.isArray(problems) && problems.map(formatProblem)).toEqual([
      'callers[0].keyspaces[0]: "Other"; expected the name of a keyspace',
    ]);
  });

  test('that holds a token in the wrong place does not have it repeated', () => {
    const token = 'krt_hunter2';
    const files = [
      fileOf({ ...gateway, token_sha256: token }, { name: token, roles: [token], keyspaces: [token], token }),
      `callers: ${token}`,
      `callers:\n  - ${token}`,
      `callers:\n  - { name: a, token: "${token} }`,
      `callers: []\n${token}`,
      `callers: *${token}`,
      `callers: !${token} []`,
      `"${token}\\q": 1`,
    ];
    for (const file of files) {
      const problems = problemsOf(file);
      expect(problems).not.toEqual([]);
      expect(problems.join('\n')).not.toContain('hunter2');
    }
  });

  test('is shown by an example that the shipped keyspaces bear out', () => {
    const read = (name: string): string => readFileSync(new URL(`../../config/${name}`, import.meta.url), 'utf8');
    const shipped = parseKeyspaces(read('keyspaces.yaml'));
    if (Array.isArray(shipped)) throw new Error('the shipped keyspaces have problems');
    expect(parseCallers(read('callers.example.yaml'), shipped)).toMatchObject({ size: 5 });
  });
});

describe('a new token', () => {
  const grant: CallerGrant = { name: 'gateway', roles: ['verifier'], keyspaces: ['*'], organizations: ['acme', '1e5'] };
  const made = (fields: Partial<CallerGrant> = {}): NewCallerToken => {
    const token = newCallerToken({ ...grant, ...fields });
    if (Array.isArray(token)) throw new Error(token.map(formatProblem).join('\n'));
    return token;
  };

  test('lets its caller in by the line that came with it', () => {
    const { token, tokenSha256, line } = made({ mayAssertActor: true, permissions: ['keys:write'] });
    expect(tokenSha256).toBe(digestOf(token.reveal()));
    expect(line).not.toContain('\n');
    expect(byToken(parsed(`callers:\n${line}\n`), token.reveal())).toEqual({
      name: 'gateway',
      roles: new Set(['verifier']),
      keyspaces: 'all',
      organizations: new Set(['acme', '1e5']),
      mayAssertActor: true,
      permissions: ['keys:write'],
    });
  });

  test('has 256 random bits, and is never made twice', () => {
    const tokens = Array.from({ length: 100 }, () => made().token.reveal());
    for (const token of tokens) expect(token).toMatch(/^krt_[A-Za-z0-9_-]{43}$/);
    expect(new Set(tokens).size).toBe(100);
  });

  test('is in no rendering of the answer, the line included', () => {
    const answer = made();
    const secret = answer.token.reveal().slice('krt_'.length);
    for (const rendering of [JSON.stringify(answer), inspect(answer, { showHidden: true }), answer.line]) {
      expect(rendering).not.toContain(secret);
    }
  });

  test('is not made for a line that the file would not take', () => {
    const problems = newCallerToken({ name: 'local', roles: ['root'], keyspaces: [], organizations: ['a/b'] });
    expect(Array.isArray(problems) && problems.map(formatProblem)).toEqual([
      'name: "local"; expected another name: this is the caller of a server without callers',
      'roles[0]: "root"; expected one of verifier, provisioner, auditor, admin',
      "keyspaces: an empty list; expected '*' or at least one name",
      'organizations[0]: "a/b"; expected 1 to 128 characters of A-Z a-z 0-9 . _ : -',
    ]);
  });
});
