// The page: loads the scene, draws when something changed, answers the buttons.

function text(id) { return document.getElementById(id).textContent; }

function say(message) { document.getElementById("message").textContent = message; }

class Page {
  constructor(canvas) {
    this.canvas = canvas;
    this.header = JSON.parse(text("scene-header"));
    this.renderer = new Renderer(canvas);
    this.backgrounds = [this.header.background, [0, 0, 0], [1, 1, 1]];
    this.fixed = null;          // a camera given by show(), until the user moves
    this.dirty = this.sorting = false;
    this.sorted = "";           // the direction and place of the order that is drawn
    this.coarse = 1;            // pixels per pixel drawn, while a slow device moves
    this.times = [];
    this.controls = new Controls(canvas, this.header.view, () => this.moved(), (x, y) => this.pick(x, y));
    this.worker = new Worker(URL.createObjectURL(new Blob([text("worker")], {type: "text/javascript"})));
    this.worker.onerror = () => say("This browser does not run the page's worker.");
    this.loaded = new Promise((done) => {
      this.worker.onmessage = ({data}) => this.receive(data, done);
    });
    const elements = [...document.querySelectorAll(".scene-data")];
    this.worker.postMessage({kind: "scene", header: this.header, pieces: elements.map((e) => e.textContent)});
    elements.forEach((element) => element.remove());
    canvas.addEventListener("webglcontextlost", () => say("The graphics driver was reset. Reload the page."));
    new ResizeObserver(() => this.redraw()).observe(canvas);
  }

  receive(data, done) {
    if (data.kind === "error") say(data.text);
    if (data.kind === "scene") {
      this.renderer.setScene(this.header, data);
      this.ready = true;
      this.redraw();
      done();
    }
    if (data.kind === "order") {
      this.sorting = false;
      this.renderer.setOrder(data.order);
      this.sorted = data.number;
      say("");
      this.redraw();
    }
    if (data.kind === "picked") this.controls.look(data.origin, data.direction, data.distance);
  }

  moved() {
    this.fixed = null;
    this.movedAt = performance.now();
    this.redraw();
  }

  redraw() {
    if (!this.dirty) requestAnimationFrame((time) => this.guarded(time));
    this.dirty = true;
  }

  guarded(time) {
    try {
      this.tick(time);
    } catch (error) {
      say(error.message);
    }
  }

  tick(time) {
    this.dirty = false;
    if (!this.ready) return;
    const elapsed = Math.min(0.1, (time - (this.last ?? time)) / 1000);
    this.last = this.controls.advance(elapsed) ? time : undefined;
    this.adapt(time);
    const camera = this.fixed ?? this.camera();
    const number = [...camera.rows[2], camera.translation[2]].join(" ");
    if (this.sorted !== number && !this.sorting) {
      this.sorting = true;
      this.worker.postMessage({kind: "sort", row: camera.rows[2], shift: camera.translation[2], number});
    }
    if (this.canvas.width !== camera.size[0] || this.canvas.height !== camera.size[1]) {
      [this.canvas.width, this.canvas.height] = camera.size;
    }
    this.renderer.draw(camera, this.backgrounds[0]);
    if (this.last !== undefined || this.coarse > 1) this.redraw();
    else if (this.sorted === number) this.settled?.();
  }

  // Where frames take longer than 50 ms while the camera moves, half as many pixels a side until it rests.
  adapt(time) {
    const moving = performance.now() - (this.movedAt ?? -1e9) < 250;
    this.times = moving ? [...this.times, time].slice(-5) : [];
    if (!moving) this.coarse = 1;
    else if (this.times.length === 5 && time - this.times[0] > 200) this.coarse = 2;
  }

  camera() {
    const ratio = Math.min(window.devicePixelRatio, 2) / this.coarse;
    const size = [this.canvas.clientWidth, this.canvas.clientHeight].map((v) => Math.max(1, Math.round(v * ratio)));
    // The whole of the first view's picture fits, whatever the window's shape.
    const [across, down] = this.header.view.fov.map((degrees) => Math.tan(degrees * Math.PI / 360));
    const focal = Math.min(size[0] / across, size[1] / down) / 2;
    const rows = this.controls.rows, eye = this.controls.position;
    return {rows, eye, translation: rows.map((row) => -dot(row, eye)), focal: [focal, focal], principal: size.map((v) => v / 2), size};
  }

  pick(x, y) {
    const {rows, eye, focal, principal, size} = this.camera(), ratio = size[0] / this.canvas.clientWidth;
    const a = (x * ratio - principal[0]) / focal[0], b = (y * ratio - principal[1]) / focal[1];
    const direction = unit(add(add(rows[2], rows[0], a), rows[1], b));
    this.worker.postMessage({kind: "pick", origin: eye, direction});
  }

  // Shows what a pinhole camera sees, exactly: {width, height, fx, fy, cx, cy, world_to_camera (4 rows of 4)}.
  // Resolves when it is drawn. The next movement by the user starts from where they were before.
  async show({width, height, fx, fy, cx, cy, world_to_camera: pose}) {
    await this.loaded;
    const rows = pose.slice(0, 3).map((row) => row.slice(0, 3)), translation = pose.slice(0, 3).map((row) => row[3]);
    const eye = [0, 1, 2].map((k) => -rows.reduce((sum, row, i) => sum + row[k] * translation[i], 0));
    this.fixed = {rows, translation, eye, focal: [fx, fy], principal: [cx, cy], size: [width, height]};
    return new Promise((done) => {
      this.settled = done;
      this.redraw();
    });
  }
}

function start() {
  const page = window.splatPage = new Page(document.getElementById("canvas"));
  const button = (id, action) => {
    document.getElementById(id).onclick = () => { action(); page.canvas.focus(); };
  };
  const actions = {
    mode() {
      page.controls.flying = !page.controls.flying;
      document.getElementById("mode").textContent = page.controls.flying ? "Fly" : "Orbit";
    },
    reset: () => page.controls.reset(),
    backdrop() {
      page.backgrounds.push(page.backgrounds.shift());
      page.redraw();
    },
    fullscreen: () => document.fullscreenElement ? document.exitFullscreen() : document.documentElement.requestFullscreen(),
    help: () => document.getElementById("keys").showModal(),
  };
  for (const [id, action] of Object.entries(actions)) button(id, action);
  const keys = {KeyF: actions.mode, KeyR: actions.reset, KeyB: actions.backdrop, KeyH: actions.help};
  addEventListener("keydown", (event) => {
    if (!event.ctrlKey && !event.metaKey && !event.altKey && !event.repeat) keys[event.code]?.();
  });
}

try {
  start();
} catch (error) {
  say(error.message);
}
