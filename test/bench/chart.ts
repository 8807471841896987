/** A chart of bars as an SVG that reads on a light ground and on a dark one. */
import type { Bar } from './measured.js';
import { toShort } from './measured.js';

const WIDTH = 880;
const LABEL_WIDTH = 300;
const VALUE_WIDTH = 90;
const ROW_HEIGHT = 30;
const BAR_HEIGHT = 18;
const TOP = 56;
const BOTTOM = 40;

/** @param below stands under the bars */
export function drawBars(bars: readonly Bar[], below: string): string {
  const height = TOP + bars.length * ROW_HEIGHT + BOTTOM;
  const most = Math.max(...bars.map(({ perSecond }) => perSecond));
  const rows = bars.map(({ what, perSecond, own }, at) => {
    const y = TOP + at * ROW_HEIGHT;
    const width = Math.max(1, (perSecond / most) * (WIDTH - LABEL_WIDTH - VALUE_WIDTH));
    const middle = y + BAR_HEIGHT / 2 + 5;
    return [
      `<text x="${LABEL_WIDTH - 10}" y="${middle}" text-anchor="end">${escape(what)}</text>`,
      `<rect x="${LABEL_WIDTH}" y="${y}" width="${width.toFixed(1)}" height="${BAR_HEIGHT}" rx="2" class="${own ? 'own' : 'other'}"/>`,
      `<text x="${(LABEL_WIDTH + width + 8).toFixed(1)}" y="${middle}">${toShort(perSecond)}</text>`,
    ].join('\n');
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img" aria-label="Keys verified a second">
<style>
text { font: 14px system-ui, sans-serif; fill: #1f2328; }
.title { font-weight: 600; font-size: 16px; }
.below { font-size: 10px; fill: #59636e; }
.ground { fill: #ffffff; }
.own { fill: #0969da; }
.other { fill: #9aa4ae; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .below { fill: #9198a1; }
  .ground { fill: #0d1117; }
  .own { fill: #4493f8; }
  .other { fill: #6e7681; }
}
</style>
<rect class="ground" width="${WIDTH}" height="${height}"/>
<text class="title" x="16" y="30">Keys verified a second</text>
${rows.join('\n')}
<text class="below" x="16" y="${height - 14}">${escape(below)}</text>
</svg>
`;
}

function escape(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}
