/**
 * A store belongs to one installation from its first opening on. Under another name what the audit sink holds would pass
 * for somebody else's, and a store put back to an earlier state would not be found out.
 */

/** @throws Error that names both, where the store is another installation's */
export function checkSource(stored: string, own: string): void {
  if (stored === own) return;
  throw new Error(
    `its events come from ${stored}, and those of this service would come from ${own}: ` +
      'set KEYREEVE_INSTALLATION to the name that it had',
  );
}
