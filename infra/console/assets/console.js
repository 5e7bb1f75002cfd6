// The part of the console that runs in the browser: times in the viewer's zone, and the word that the connection is lost.
'use strict';

const today = () => new Date().toLocaleDateString();
const timeOfDay = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' });
const dayAndTime = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit' });
const exact = new Intl.DateTimeFormat(undefined, { dateStyle: 'full', timeStyle: 'long' });

// Writes each time below a node by the viewer's clock: of today the time of day, and the exact time on hover.
function localize(node) {
  for (const time of node.querySelectorAll('time[datetime]:not([data-local])')) {
    const at = new Date(time.dateTime);
    if (isNaN(at)) continue;
    time.textContent = at.toLocaleDateString() === today() ? timeOfDay.format(at) : dayAndTime.format(at);
    time.title = `${exact.format(at)} (${time.dateTime})`;
    time.dataset.local = '';
  }
}

function offline(isLost) {
  const banner = document.getElementById('offline');
  if (banner) banner.hidden = !isLost;
}

// Draws the messages of each minute, by the numbers of the table that is there for those who cannot see the drawing.
let plot;
function chart() {
  const place = document.getElementById('chart');
  const table = document.getElementById('minutes');
  if (!place || !table || !window.uPlot) return;
  const values = [...table.querySelectorAll('data')].map(data => data.value.split(' ').map(Number));
  const columns = [values.map(([second]) => second), values.map(([, sent]) => sent)];
  if (plot && place.contains(plot.root)) return plot.setData(columns);
  const colour = name => getComputedStyle(place)[name];
  const soft = () => colour('color');
  const axis = { stroke: soft, grid: { stroke: () => colour('borderTopColor'), width: 1 }, ticks: { show: false }, font: '11px system-ui' };
  const told = document.createElement('p');
  const number = new Intl.NumberFormat();
  const size = () => ({ width: place.clientWidth, height: place.clientHeight });
  plot = new uPlot({
    ...size(),
    legend: { show: false },
    cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
    scales: { x: { range: ({ data: [seconds] }) => [seconds[0] - 30, Math.max(seconds.at(-1), seconds[0] + 600) + 30] }, y: { range: (_, min, max) => [0, Math.max(max, 1) * 1.1] } },
    axes: [
      { ...axis, size: 24, space: 60, values: (_, seconds) => seconds.map(second => timeOfDay.format(second * 1000)) },
      { ...axis, size: 48, values: (_, counts) => counts.map(count => Number.isInteger(count) ? number.format(count) : '') },
    ],
    series: [{}, { stroke: () => colour('caretColor'), fill: () => colour('caretColor'), width: 0, paths: uPlot.paths.bars({ size: [0.8, 24], align: 1 }), points: { show: false } }],
    hooks: {
      setCursor: [({ cursor: { idx }, data }) => {
        told.textContent = idx == null ? '' : `${timeOfDay.format(data[0][idx] * 1000)} · ${number.format(data[1][idx])} messages`;
      }],
    },
  }, columns, place);
  place.append(told);
  new ResizeObserver(() => plot.setSize(size())).observe(place);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => plot.redraw());
}

localize(document);
chart();
// Morphing puts the server's text back into the times.
document.addEventListener('htmx:after:swap', () => { localize(document); chart(); });

// An answer of any kind tells that the console is there; one with an error of a gateway, that the API is not.
document.addEventListener('htmx:error', () => offline(true));
document.addEventListener('htmx:after:request', event => offline((event.detail?.ctx?.response?.status ?? 599) >= 500));
