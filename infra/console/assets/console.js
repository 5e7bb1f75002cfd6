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

localize(document);
// Morphing puts the server's text back into the times.
document.addEventListener('htmx:after:swap', () => localize(document));

// An answer of any kind tells that the console is there; one with an error of a gateway, that the API is not.
document.addEventListener('htmx:error', () => offline(true));
document.addEventListener('htmx:after:request', event => offline((event.detail?.ctx?.response?.status ?? 599) >= 500));
