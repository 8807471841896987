/** Envoy's check (`envoy.service.auth.v3`): what a gateway is to do with a request, by the rules of the route's keyspace. */
import { status as GrpcStatus } from '@grpc/grpc-js';

import {
  type HeaderValue,
  type HeaderValueOption,
  HeaderValueOption_HeaderAppendAction,
} from '../gen/envoy/config/core/v3/base.js';
import type { AttributeContext_HttpRequest } from '../gen/envoy/service/auth/v3/attribute_context.js';
import { type CheckRequest, CheckResponse } from '../gen/envoy/service/auth/v3/external_auth.js';
import type { Answer } from '../gateway/answer.js';
import type { Header } from '../gateway/header.js';
import type { RequestHeaders } from '../gateway/request-headers.js';
import { upstreamHeadersOf } from '../gateway/upstream-headers.js';
import type { Log } from '../log.js';
import { judgeForGateway } from './judge-for-gateway.js';
import type { Parts } from './parts.js';
import type { Unary } from './unary.js';

export function handleCheck(parts: Parts, log: Log): Unary<CheckRequest, Answer> {
  const judge = judgeForGateway(parts, 'attributes.context_extensions', log);
  return ({ attributes }, call) => {
    const fields = attributes?.contextExtensions ?? NO_FIELDS;
    return judge({ fields, headers: toRequestHeaders(attributes?.request?.http) }, call);
  };
}

const NO_FIELDS: ReadonlyMap<string, string> = new Map();

/** Envoy's list has repeated headers apart, but for some that it joins; its map has all of them joined. */
function toRequestHeaders(http: AttributeContext_HttpRequest | undefined): RequestHeaders {
  if (!http) return NO_HEADERS;
  const { headers: map, headerMap } = http;
  if (!headerMap) {
    return {
      valuesOf(name) {
        const value = map.get(name);
        return value === undefined ? [] : [value];
      },
      names: () => map.keys(),
    };
  }
  const list = headerMap.headers;
  return {
    valuesOf: (name) => list.filter(({ key }) => key === name).map(valueOf),
    names: () => list.map(({ key }) => key),
  };
}

const NO_HEADERS: RequestHeaders = { valuesOf: () => [], names: () => [] };

/** A character for each byte: what is not ASCII is in no credential, and nothing may turn into what is. */
function valueOf({ value, rawValue }: HeaderValue): string {
  return rawValue.length > 0 ? rawValue.toString('latin1') : value;
}

/** The answer as it is sent. For a key without a limit, and an honest client, it is the same each time: encoded once. */
export function serializeAnswer(answer: Answer): Buffer {
  if (answer.kind === 'refuse') return Buffer.from(encodeRefusal(answer));
  const { key, forged, headers } = answer;
  if (forged.length > 0 || headers.length > 0) return Buffer.from(encodeLetIn(answer));
  // A character for each byte.
  key.encodedCheck ??= Buffer.from(encodeLetIn(answer)).toString('latin1');
  return Buffer.from(key.encodedCheck, 'latin1');
}

function encodeLetIn({ key, forged, headers }: Extract<Answer, { kind: 'let_in' }>): Uint8Array {
  const upstream = upstreamHeadersOf(key);
  const empty = upstream.filter(([, value]) => value === '').map(([name]) => name);
  return CheckResponse.encode({
    status: { code: GrpcStatus.OK, message: '', details: [] },
    httpResponse: {
      $case: 'okResponse',
      value: {
        headers: upstream.filter(([, value]) => value !== '').map(toOption),
        headersToRemove: [...empty, ...forged],
        responseHeadersToAdd: headers.map(toOption),
      },
    },
  }).finish();
}

function encodeRefusal({ status, headers, body }: Extract<Answer, { kind: 'refuse' }>): Uint8Array {
  return CheckResponse.encode({
    status: { code: CODES[status] ?? GrpcStatus.PERMISSION_DENIED, message: '', details: [] },
    httpResponse: {
      $case: 'deniedResponse',
      // eslint-disable-next-line @typescript-eslint/no-unsafe-enum-assignment -- Envoy sends also one that it has no name for
      value: { status: { code: status }, headers: headers.map(toOption), body },
    },
  }).finish();
}

/** Envoy asks only whether it is OK. */
const CODES: Readonly<Partial<Record<number, GrpcStatus>>> = {
  401: GrpcStatus.UNAUTHENTICATED,
  429: GrpcStatus.RESOURCE_EXHAUSTED,
  503: GrpcStatus.UNAVAILABLE,
};

function toOption([key, value]: Header): HeaderValueOption {
  return {
    header: { key, value, rawValue: NO_BYTES },
    appendAction: HeaderValueOption_HeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD,
  };
}

const NO_BYTES = Buffer.alloc(0);
