import { status } from '@grpc/grpc-js';
import { expect, test } from 'vitest';

import { Refused, REASON_CODES, ShuttingDown, toErrorAnswer, toFailure, Unwanted } from '../../src/grpc/errors.js';
import { type ArgumentReason, ARGUMENT_REASONS, type Refusal } from '../../src/keys/refusal.js';
import { StoreFault } from '../../src/store/faults.js';
import { Overloaded } from '../../src/verify/misses.js';
import { toTold } from '../support/grpc-server.js';

const toldBy = (error: unknown) => toTold(toErrorAnswer(error));

const refusals: Record<Exclude<Refusal['refused'], ArgumentReason>, Refusal> = {
  KEYSPACE_NOT_FOUND: { refused: 'KEYSPACE_NOT_FOUND' },
  HTTP_RULES_MISSING: { refused: 'HTTP_RULES_MISSING' },
  KEY_NOT_FOUND: { refused: 'KEY_NOT_FOUND' },
  NAME_TAKEN: { refused: 'NAME_TAKEN' },
  DIGEST_TAKEN: { refused: 'DIGEST_TAKEN', by: 'digest' },
  KEY_REVOKED: { refused: 'KEY_REVOKED' },
  KEY_SUPERSEDED: { refused: 'KEY_SUPERSEDED' },
  KEY_EXPIRED: { refused: 'KEY_EXPIRED' },
  ORGANIZATION_SUSPENDED: { refused: 'ORGANIZATION_SUSPENDED' },
  ETAG_MISMATCH: { refused: 'ETAG_MISMATCH' },
  NAME_AMBIGUOUS: { refused: 'NAME_AMBIGUOUS' },
  KEY_LIMIT_REACHED: { refused: 'KEY_LIMIT_REACHED', limit: 3, plan: 'free' },
  REQUEST_ID_REUSED: { refused: 'REQUEST_ID_REUSED' },
  AUDIT_BACKLOG: { refused: 'AUDIT_BACKLOG' },
  CALLER_UNKNOWN: { refused: 'CALLER_UNKNOWN' },
  CALLER_NOT_ALLOWED: { refused: 'CALLER_NOT_ALLOWED' },
  ACTOR_NOT_ALLOWED: { refused: 'ACTOR_NOT_ALLOWED', message: 'SYSTEM is the service itself' },
};

test.for(Object.values(refusals))('$refused carries its reason, its domain and a sentence for people', (refusal) => {
  const answer = toErrorAnswer(new Refused(refusal));
  expect(answer).toMatchObject({ code: REASON_CODES[refusal.refused], reason: refusal.refused, isFault: false });
  expect(answer.details).toMatch(/^\S.{20,}$/);
  expect(toTold(answer)).toMatchObject({ reason: refusal.refused, domain: 'keyreeve' });
});

test.for(ARGUMENT_REASONS)('%s names the field at fault', (refused) => {
  const answer = toErrorAnswer(new Refused({ refused, field: 'actor.id', message: 'actor.id must be short' }));
  expect(toTold(answer)).toMatchObject({ code: 'INVALID_ARGUMENT', reason: refused, fields: ['actor.id'] });
  expect(answer.details).toBe('actor.id must be short');
});

test('one item that fails is told what the call would have been: code, reason, sentence and field', () => {
  const argument: Refusal = { refused: 'TYPE_INVALID', field: 'type', message: 'type must be one of A' };
  for (const refusal of [...Object.values(refusals), argument]) {
    const { code, reason, details } = toErrorAnswer(new Refused(refusal));
    expect(toFailure(new Refused(refusal))).toMatchObject({ code, reason, message: details });
  }
  expect(toFailure(new Refused(argument)).field).toBe('type');
  expect(toFailure(new Refused({ refused: 'DIGEST_TAKEN', by: 'client_id' })).field).toBe('client_id');
  expect(toFailure(new StoreFault('contention', 'busy'))).toMatchObject({ code: status.ABORTED, field: '' });
});

test('every UNAVAILABLE and OVERLOADED say when to try again, and nothing else does', () => {
  const errors = [
    ...Object.values(refusals).map((refusal) => new Refused(refusal)),
    new StoreFault('unavailable', 'away'),
    new StoreFault('contention', 'busy'),
    new ShuttingDown(),
    new Overloaded('1000 wait'),
    new Unwanted('CANCELLED'),
    new Error('unforeseen'),
  ];
  for (const error of errors) {
    const { code, reason, retrySeconds } = toldBy(error);
    expect(retrySeconds !== undefined).toBe(code === 'UNAVAILABLE' || reason === 'OVERLOADED');
  }
  expect(Object.values(REASON_CODES).filter((code) => code === status.UNAVAILABLE)).toHaveLength(3);
});

test('what nobody foresaw reaches no client', () => {
  for (const thrown of [new Error('SECRET'), 'SECRET', undefined, null, { refused: 'SECRET' }]) {
    const { code, details, metadata, isFault } = toErrorAnswer(thrown);
    expect({ code, details, isFault }).toEqual({ code: status.INTERNAL, details: 'internal error', isFault: true });
    expect(metadata.getMap()).toEqual({});
  }
});
