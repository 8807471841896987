import type { IncomingMessage } from 'node:http';

import type { Credential } from './credential.js';

/** A header field that holds the credential, after a scheme or alone; or a pair of them. Their names in any case. */
export type CredentialSource =
  | { readonly header: string; readonly scheme?: string }
  | { readonly clientIdHeader: string; readonly secretHeader: string };

type Headed = Pick<IncomingMessage, 'headersDistinct'>;

export type Presented = { readonly credential: Credential } | 'none' | 'ambiguous';

/**
 * What the request presents in one of these places. Ambiguous: in several of them, or a field comes twice, or holds
 * several values folded into one, so that somebody else could read another credential in it than this does.
 */
export function readCredential(request: Headed, sources: readonly CredentialSource[]): Presented {
  const presented = sources.map((source) => readFrom(request, source)).filter((one) => one !== 'none');
  const [only, ...others] = presented;
  if (only === undefined) return 'none';
  return others.length > 0 ? 'ambiguous' : only;
}

function readFrom(request: Headed, source: CredentialSource): Presented {
  if ('header' in source) {
    const token = readField(request, source.header, source.scheme);
    return token === undefined ? 'none' : token === 'ambiguous' ? token : { credential: token.value };
  }
  const clientId = readField(request, source.clientIdHeader);
  const secret = readField(request, source.secretHeader);
  if (clientId === 'ambiguous' || secret === 'ambiguous') return 'ambiguous';
  // Half a pair is no credential, and with an empty half the service turns it down.
  if (!clientId && !secret) return 'none';
  return { credential: { clientId: clientId?.value ?? '', secret: secret?.value ?? '' } };
}

/** Undefined: it is not there, or is empty, or of another form. */
function readField(
  request: Headed,
  header: string,
  scheme?: string,
): { readonly value: string } | 'ambiguous' | undefined {
  // `headers` keeps the first of two Authorization fields and says nothing of the other.
  const values = request.headersDistinct[header.toLowerCase()] ?? [];
  if (values.length > 1) return 'ambiguous';
  const [text = ''] = values;
  const words = text.split(/[ \t]+/).filter((word) => word !== '');
  if (words.length === 0) return undefined;
  // Two fields that a proxy has folded into one.
  if (text.includes(',')) return 'ambiguous';
  if (scheme === undefined) return words.length === 1 ? toValue(words[0]) : undefined;
  if (words[0]?.toLowerCase() !== scheme.toLowerCase()) return undefined;
  return words.length > 2 ? 'ambiguous' : toValue(words[1]);
}

function toValue(value: string | undefined): { readonly value: string } | undefined {
  return value === undefined ? undefined : { value };
}
