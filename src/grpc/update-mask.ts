import { type ArgumentRefusal, refuseArgument } from '../keys/refusal.js';

/**
 * The fields that a request names to be changed, each once.
 * @param paths as `google.protobuf.FieldMask` has them; undefined: there is no mask
 */
export function parseUpdateMask<Path extends string>(
  paths: readonly string[] | undefined,
  allowed: readonly Path[],
): ReadonlySet<Path> | ArgumentRefusal {
  const named = new Set(allowed.filter((path) => paths?.includes(path)));
  const isKnown = (path: string) => (allowed as readonly string[]).includes(path);
  if (named.size > 0 && paths?.every(isKnown)) return named;
  return refuseArgument(
    'UPDATE_MASK_INVALID',
    'update_mask',
    `update_mask must name one or more of ${allowed.join(', ')}, and nothing else`,
  );
}
