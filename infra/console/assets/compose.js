// The part of the form of a new broadcast that runs in the browser: the draft, the file of ids, and the variables of the text.
'use strict';
{
  const form = document.getElementById('compose');
  const byId = id => document.getElementById(id);
  const PLACE = 'oncecast-draft';
  // Values of the session or of one check, which are no part of what was written.
  const NOT_KEPT = ['csrf', 'test_key', 'checked', 'found', 'confirm', 'sample_of', 'sample', 'sample_words'];
  let timer, discarded = false;

  const values = () => [...new FormData(form)].filter(([name]) => !NOT_KEPT.includes(name));

  function read() {
    try { return JSON.parse(localStorage.getItem(PLACE)); } catch { return null; }
  }

  function tell(words) {
    byId('draft').textContent = words;
    byId('discard').hidden = false;
  }

  // Keeps the draft. With `attempt`, it was sent, and the answer is not there yet.
  function save(attempt) {
    clearTimeout(timer);
    if (discarded) return;
    const draft = values().map(([name, value]) => [name, name === 'attempted' && attempt ? attempt : value]);
    try {
      localStorage.setItem(PLACE, JSON.stringify(draft));
      tell('Draft kept in this browser');
    } catch {
      localStorage.removeItem(PLACE);
      tell('Too large to be kept in this browser');
    }
  }

  function restore(draft) {
    const all = name => draft.filter(([known]) => known === name).map(([, value]) => value);
    const seen = {};
    for (const field of form.elements) {
      if (!field.name || field.type === 'submit' || NOT_KEPT.includes(field.name)) continue;
      if (field.type === 'checkbox' || field.type === 'radio') field.checked = all(field.name).includes(field.value);
      else {
        const at = seen[field.name] = (seen[field.name] ?? -1) + 1;
        field.value = all(field.name)[at] ?? field.value;
      }
      const folded = field.closest('details');
      if (folded && (field.type === 'checkbox' ? field.checked : field.value)) folded.open = true;
    }
    byId('unanswered').hidden = !form.elements.attempted.value;
    tell('Draft of this browser');
  }

  for (const node of document.querySelectorAll('[data-script]')) node.hidden = false;

  let draft = read();
  const keyOf = draft => draft?.find?.(([name]) => name === 'key')?.[1];
  if (draft && document.cookie.split('; ').includes(`oncecast-sent=${keyOf(draft)}`)) {
    localStorage.removeItem(PLACE);
    draft = null;
  }
  const isBlank = 'blank' in form.dataset;
  if (isBlank && draft) restore(draft);
  else if (isBlank) form.elements.zone.value = Intl.DateTimeFormat().resolvedOptions().timeZone ?? form.elements.zone.value;
  else save();
  // From now on the draft has what the address had, and a reload shows the draft.
  if (location.search) history.replaceState(null, '', location.pathname);
  // The preview of what is there already.
  if (!isBlank || draft) document.addEventListener('htmx:after:init', () =>
    byId('message').dispatchEvent(new Event('input', { bubbles: true })), { once: true });

  form.addEventListener('input', event => {
    clearTimeout(timer);
    if (event.isTrusted) timer = setTimeout(save, 300);
    const send = byId('send');
    if (!send || !event.isTrusted || event.target.id === 'confirm') return;
    byId('stale').hidden = false;
    send.disabled = true;
  });
  form.addEventListener('submit', event => {
    const isSend = event.submitter?.value === 'send' || (!event.submitter?.value && form.elements.confirm?.value);
    save(isSend && form.elements.checked?.value);
  });
  byId('discard').addEventListener('click', () => {
    discarded = true;
    clearTimeout(timer);
    localStorage.removeItem(PLACE);
  });

  for (const button of document.querySelectorAll('[data-insert]')) {
    button.addEventListener('click', () => {
      const text = byId('text');
      text.setRangeText(button.dataset.insert, text.selectionStart, text.selectionEnd, 'end');
      text.focus();
      text.dispatchEvent(new Event('input', { bubbles: true }));
      save();
    });
  }

  byId('file').addEventListener('change', async event => {
    const [file] = event.target.files;
    if (!file) return;
    const text = await file.text();
    const isText = !text.includes('\0') && !text.includes('\uFFFD');
    byId('file-read').textContent = isText ? `${file.name} was read` : `${file.name} is no text in UTF-8`;
    if (!isText) return;
    byId('ids').value = text;
    byId('ids').dispatchEvent(new Event('input', { bubbles: true }));
    save();
  });
}
