// The charts of a dashboard: two questions at a time are asked, so that other pages are answered meanwhile.
const waiting = [];
let asked = 0;

function draw(name, display, url) {
  waiting.push([document.getElementById(`chart-${name}`), display, url]);
  next();
}

async function next() {
  if (asked >= 2 || !waiting.length) return;
  const [place, display, url] = waiting.shift();
  asked += 1;
  try {
    await drawn(place, display, await rows(url));
  } catch (problem) {
    tell(place, problem.message);
  } finally {
    asked -= 1;
    next();
  }
}

async function rows(url) {
  // The question is asked with what the page was asked for.
  const query = new URLSearchParams(window.location.search);
  query.set('_shape', 'objects');
  const answer = await fetch(`${url}?${query}`);
  const data = await answer.json();
  if (!answer.ok) throw new Error(data.error);
  if (data.truncated) throw new Error('Too many rows: choose a shorter period.');
  return data.rows;
}

async function drawn(place, display, values) {
  if (!values.length) return tell(place, 'Nothing was recorded.');
  place.textContent = '';
  await vegaEmbed(place, { ...display, width: 'container', data: { values } });
  place.dataset.rows = values.length;
}

function tell(place, text) {
  place.textContent = text;
  place.classList.add('told');
}

// A page of rows: they are drawn as a dashboard has them, or as whoever looks at them chooses.
function offer(display, scripts) {
  const table = document.querySelector('table.rows-and-columns');
  const form = document.querySelector('form.chooser');
  if (!table) return;
  const names = [...table.querySelectorAll('th')].map((cell) => cell.textContent.trim());
  const values = [...table.querySelectorAll('tbody tr')].map((row) => {
    const cells = [...row.querySelectorAll('td')].map((cell) => cell.textContent.trim());
    return Object.fromEntries(names.map((name, column) => [name, valueOf(cells[column])]));
  });
  const known = (name) => values.map((row) => row[name]).filter((value) => value !== null);
  const isNumber = (name) => known(name).length > 0 && known(name).every((value) => typeof value === 'number');
  if (display) show(display, values, scripts);
  if (names.length < 2) return;
  for (const field of ['x', 'y', 'color']) {
    for (const name of names) form.elements[field].add(new Option(name));
  }
  form.elements.y.value = names.find(isNumber) || names[1];
  form.hidden = false;
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    const { mark, x, y, color } = Object.fromEntries(new FormData(form));
    const encoding = { x: axis(x, isNumber(x) && mark !== 'bar'), y: axis(y, isNumber(y)) };
    if (color) encoding.color = axis(color, false);
    show({ ...plain, mark: { type: mark, tooltip: true }, encoding }, values, scripts);
  });
}

const plain = {
  $schema: 'https://vega.github.io/schema/vega-lite/v6.json',
  usermeta: { embedOptions: { actions: false, renderer: 'svg' } },
  height: 300,
  autosize: { type: 'fit-x', contains: 'padding' },
  config: { background: '#00000000' },
};

function axis(name, number) {
  // Dots and brackets in a name would be a path to Vega.
  const field = name.replace(/[.\[\]\\]/g, '\\$&');
  return { field, title: name, type: number ? 'quantitative' : 'nominal', sort: null };
}

function valueOf(text) {
  if (text === '') return null;
  return /^-?\d+(\.\d+)?(e[-+]?\d+)?$/.test(text) ? Number(text) : text;
}

async function show(display, values, scripts) {
  for (const source of scripts) await loaded(source);
  const place = document.getElementById('chart-query');
  place.closest('.charts').hidden = false;
  await drawn(place, display, values);
}

function loaded(source) {
  if (document.querySelector(`script[src="${source}"]`)) return Promise.resolve();
  return new Promise((done, failed) => {
    const script = document.createElement('script');
    script.addEventListener('load', done);
    script.addEventListener('error', failed);
    script.src = source;
    document.head.append(script);
  });
}
