// Sends files one by one, each with a progress bar, whether they are chosen in the form or dropped anywhere on the page. Without
// this the form does what forms do. Texts of others become text nodes, never markup.
{
  const form = document.querySelector('form.upload');
  const list = document.querySelector('.transfers');
  const summary = document.querySelector('[role=status]');
  const queue = [];
  let current = null, stored = 0, failed = 0;

  const make = (name, properties) => Object.assign(document.createElement(name), properties);

  const add = file => {
    const transfer = {
      file,
      item: make('li'),
      bar: make('progress', {max: 1, value: 0, ariaLabel: file.name}),
      said: make('span', {textContent: 'Waiting'}),
      cancel: make('button', {type: 'button', textContent: 'Cancel', ariaLabel: `Cancel ${file.name}`}),
    };
    transfer.cancel.onclick = () => {
      queue.splice(queue.indexOf(transfer), 1);
      end(transfer, false, 'Cancelled.');
    };
    transfer.item.append(make('bdi', {textContent: file.name}), transfer.cancel, transfer.said, transfer.bar);
    list.append(transfer.item);
    list.hidden = false;
    queue.push(transfer);
  };

  const end = (transfer, well, text) => {
    transfer.bar.remove();
    transfer.cancel.remove();
    transfer.said.textContent = text;
    transfer.item.className = well ? 'right' : 'wrong';
    well ? stored++ : failed++;
  };

  const next = () => {
    if (current) return;
    current = queue.shift();
    current ? send(current) : finish();
  };

  const send = transfer => {
    const {file, bar, said, cancel} = transfer;
    const content = new FormData();
    if (form.elements.token) content.append('token', form.elements.token.value);
    content.append('file', file);
    const request = new XMLHttpRequest();
    request.open('POST', location.pathname);
    request.setRequestHeader('Accept', 'text/plain');
    request.upload.onprogress = ({loaded, total}) => {
      bar.value = loaded / total;
      said.textContent = loaded < total ? `${Math.floor(100 * loaded / total)} % of ${size(total)}` : 'Being stored';
    };
    request.onload = () => {
      if (request.status !== 201) return end(transfer, false, request.responseText.trim());
      const name = decodeURIComponent((request.getResponseHeader('Location') ?? '').split('/').pop());
      end(transfer, true, name && name !== file.name ? `Uploaded as ${name}` : 'Uploaded');
    };
    request.onerror = () => end(transfer, false, 'The file could not be read, or the connection to the server was lost.');
    request.onabort = () => end(transfer, false, 'Cancelled.');
    request.onloadend = () => {
      current = null;
      next();
    };
    cancel.onclick = () => request.abort();
    request.send(content);
  };

  // Shows what the folder has now; what became of each file stays.
  const finish = () => {
    summary.textContent = `${stored} uploaded` + (failed ? `, ${failed} not` : '');
    const request = new XMLHttpRequest();
    request.open('GET', location.pathname);
    request.responseType = 'document';
    request.onload = () => {
      const fresh = request.response?.getElementById('contents');
      if (fresh) document.getElementById('contents').replaceWith(document.adoptNode(fresh));
    };
    request.send();
  };

  const size = bytes => {
    let unit = 0;
    for (; bytes >= 1024 && unit < 4; unit++) bytes /= 1024;
    return `${bytes.toFixed(unit && bytes < 10 ? 1 : 0)} ${['B', 'KiB', 'MiB', 'GiB', 'TiB'][unit]}`;
  };

  const start = files => {
    for (const file of files) add(file);
    summary.textContent = '';
    next();
  };

  form.onsubmit = event => {
    event.preventDefault();
    start(form.elements.file.files);
    form.elements.file.value = '';
  };

  // Of what is dragged over the page only files are for it; a browser would show them instead.
  const dragged = over => event => {
    if (!event.dataTransfer?.types.includes('Files')) return;
    event.preventDefault();
    document.documentElement.classList.toggle('dropping', over);
    if (event.type !== 'drop') return;
    if (form.elements.token && !form.elements.token.reportValidity()) return;
    start(event.dataTransfer.files);
  };
  addEventListener('dragover', dragged(true));
  addEventListener('dragleave', dragged(false));
  addEventListener('drop', dragged(false));

  addEventListener('beforeunload', event => current && event.preventDefault());

  for (const hidden of form.querySelectorAll('[hidden]')) hidden.hidden = false;
}
