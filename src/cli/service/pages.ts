const PAGE_SIZE_MAX = 500;

/** Asks for page after page, until there is no more or there are `limit` items. */
export async function collectPages<T>(
  limit = Infinity,
  ask: (page: { pageSize: number; pageToken: string }) => Promise<{ items: readonly T[]; nextPageToken: string }>,
): Promise<T[]> {
  const collected: T[] = [];
  let pageToken = '';
  do {
    const pageSize = Math.min(limit - collected.length, PAGE_SIZE_MAX);
    const { items, nextPageToken } = await ask({ pageSize, pageToken });
    for (const item of items) collected.push(item);
    pageToken = nextPageToken;
  } while (pageToken !== '' && collected.length < limit);
  return collected;
}
