#!/usr/bin/env python3
"""Run CPython's own multiprocessing suite against a chosen module.

    python run_cpython.py --module multiprocessing --method fork
    python run_cpython.py --module procession --method spawn --json out.json
    python run_cpython.py --module procession --method default -k TestPool

How the module under test is put in place (--how):

  rewrite (the default, the sounder one)
      The suite's source is found with `import test._test_multiprocessing`,
      copied to a temporary package `mpconf_suite`, and every whole word
      `multiprocessing` in it (imports, attribute chains, mock.patch paths,
      programs held in strings) is replaced by the module's name. Nothing is
      aliased: the standard library's package keeps its own name, so the library
      under test and the rest of the standard library may go on using it. Children
      started by spawn and forkserver import the same rewritten files by name.
  alias
      The suite's words are left alone; substitute/sitecustomize.py (on
      PYTHONPATH, switched on by MP_SUBSTITUTE) makes `import multiprocessing`
      mean the module under test, in every Python process of the run.

A sub-module that the module under test lacks falls back to the standard
library's one and the report says which did (--no-fallback to let it fail).

Each TestCase class runs in a process of its own, in an empty directory, with
events streamed back; a test over its time limit has its whole process tree
killed, and the rest of its class goes on in a fresh process.

This file holds no part of CPython's suite.
"""
import argparse
import fnmatch
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid

HERE = os.path.dirname(os.path.abspath(__file__))
PKG = 'mpconf_suite'
TOKEN_VAR = 'MPCONF_TOKEN'
STD_SUBMODULES = [
    'process', 'reduction', 'context', 'util', 'connection', 'spawn',
    'resource_tracker', 'resource_sharer', 'popen_fork', 'popen_spawn_posix',
    'popen_forkserver', 'forkserver', 'heap', 'synchronize', 'queues',
    'sharedctypes', 'shared_memory', 'pool', 'managers', 'dummy',
    'dummy.connection',
]

PRELUDE = '''\
import importlib, os, sys
TARGET = {target!r}
FALLBACK = {fallback!r}
FOREIGN_SUITE = {foreign!r}
for _name in FALLBACK:
    _real = importlib.import_module('multiprocessing.' + _name)
    _parent, _, _leaf = (TARGET + '.' + _name).rpartition('.')
    _parent = importlib.import_module(_parent)
    sys.modules.setdefault(TARGET + '.' + _name, _real)
    if not hasattr(_parent, _leaf):
        setattr(_parent, _leaf, _real)
# private names that the suite's fixtures use before and after every test
SHIMMED = []
if TARGET != 'multiprocessing':
    import weakref

    def _shim(sub, name, value):
        m = importlib.import_module(TARGET + '.' + sub)
        if not hasattr(m, name):
            setattr(m, name, value)
            SHIMMED.append(sub + '.' + name)
    _shim('process', '_dangling', weakref.WeakSet())
    _shim('process', '_cleanup', lambda: None)
    _shim('util', '_cleanup_tests', lambda: None)
    _shim('util', 'get_temp_dir', lambda: None)
    _shim('util', 'SUBWARNING', 25)
try:
    import test.support
    if not hasattr(test.support, 'subTests'):      # newer suites decorate with it
        import functools

        def _sub_tests(names, values, /, **_options):
            if isinstance(names, str):
                names = names.replace(',', ' ').split()

            def decorate(f):
                @functools.wraps(f)
                def wrapper(self, *args, **kwargs):
                    for v in values:
                        given = dict(zip(names, (v,) if len(names) == 1 else v))
                        with self.subTest(**given):
                            f(self, *args, **kwargs, **given)
                return wrapper
            return decorate
        test.support.subTests = _sub_tests
    _skip_if_sanitizer = getattr(test.support, 'skip_if_sanitizer', None)
    if _skip_if_sanitizer is not None and FOREIGN_SUITE:   # it took fewer keywords once
        test.support.skip_if_sanitizer = lambda *_a, **_k: (lambda f: f)
    from test.support import script_helper
    # programs that the suite runs must see PYTHONPATH: no -I, no -E
    script_helper.__dict__['__cached_interp_requires_environment'] = True
except ImportError:
    pass
'''

WRAPPER = '''\
import unittest
from {pkg} import {suite} as _suite
from {pkg}._prelude import TARGET
METHOD = {method!r}
if hasattr(_suite, '_TestCondition'):
    # the waiters' private counters are looked at only where there are such
    def _wrap(check):
        def check_invariant(self, cond):
            if hasattr(cond, '_sleeping_count') and hasattr(cond, '_wait_semaphore'):
                check(self, cond)
        return check_invariant
    _suite._TestCondition.check_invariant = _wrap(_suite._TestCondition.check_invariant)
if hasattr(_suite, 'install_tests_in_module_dict'):
    _suite.install_tests_in_module_dict(globals(), METHOD)
else:
    for _n, _o in list(vars(_suite).items()):
        if isinstance(_o, type) and issubclass(_o, unittest.TestCase) \\
                and _o.__module__ == _suite.__name__:
            globals()[_n] = _o
    for _n in ('setUpModule', 'tearDownModule'):
        if hasattr(_suite, _n):
            globals()[_n] = getattr(_suite, _n)
'''

WORKER = '''\
import sys


def tests_of(module):
    import unittest
    out = []

    def walk(s):
        for t in s:
            if isinstance(t, unittest.TestSuite):
                walk(t)
            else:
                out.append(t)
    walk(unittest.TestLoader().loadTestsFromModule(module))
    return out


def short(test):
    return type(test).__qualname__ + '.' + test._testMethodName


def origin(module_or_class):
    return getattr(module_or_class, '__module__', None) or module_or_class.__name__


def probe_child(conn, target):
    import importlib
    import os
    mod = importlib.import_module(target)
    me = mod.current_process()
    std = sys.modules.get('multiprocessing')
    conn.send({{
        'pid': os.getpid(),
        'current_process_class': type(me).__module__ + '.' + type(me).__qualname__,
        'mro': [c.__module__ + '.' + c.__qualname__ for c in type(me).__mro__],
        'main_process_name': me.name,
        'sys.modules[multiprocessing]': std and std.__name__,
        'conn_class': type(conn).__module__ + '.' + type(conn).__qualname__,
        'suite_sees': getattr(sys.modules.get({pkg!r} + '.' + {suite!r}),
                              'multiprocessing', mod).__name__,
    }})
    conn.close()


def main():
    import importlib, json, os, time, unittest, faulthandler, traceback
    spec = json.load(open(sys.argv[1]))
    out = open(spec['events'], 'a', buffering=1)

    def emit(**ev):
        ev['t'] = time.monotonic()
        out.write(json.dumps(ev) + '\\n')
        out.flush()

    prelude = importlib.import_module({pkg!r} + '._prelude')
    method = spec['method']
    if spec['what'] == 'probe':
        mod = importlib.import_module(spec['alias'] and 'multiprocessing' or prelude.TARGET)
        emit(ev='module', name=mod.__name__, file=getattr(mod, '__file__', None),
             methods=mod.get_all_start_methods())
        if method != 'default':
            mod.set_start_method(method, force=True)
        r, w = mod.Pipe(False)
        p = mod.Process(target=probe_child, args=(w, mod.__name__))
        p.start()
        w.close()
        emit(ev='child', parent_pid=os.getpid(), **r.recv())
        p.join()
        emit(ev='exit', code=p.exitcode)
        return

    wrapper = importlib.import_module({pkg!r} + '.' + spec['wrapper'])
    tests = tests_of(wrapper)
    if spec['what'] == 'list':
        emit(ev='list', tests=[short(t) for t in tests], shimmed=prelude.SHIMMED)
        return

    wanted = set(spec['tests'])
    limit = spec['limit']

    class Result(unittest.TestResult):
        def __init__(self):
            super().__init__()
            self.state = None

        def startTest(self, test):
            super().startTest(test)
            self.state = None
            self.began = time.monotonic()
            faulthandler.dump_traceback_later(max(1, limit - 2))
            emit(ev='start', test=short(test))

        def note(self, test, status, msg=''):
            if isinstance(test, unittest.TestCase):
                if self.state is None or self.state[0] in ('passed', 'skipped'):
                    self.state = (status, msg)
            else:
                emit(ev='fixture', id=test.id(), status=status, msg=msg)

        def stopTest(self, test):
            super().stopTest(test)
            faulthandler.cancel_dump_traceback_later()
            status, msg = self.state or ('passed', '')
            emit(ev='result', test=short(test), status=status, msg=msg,
                 dt=round(time.monotonic() - self.began, 3))

        def text(self, err):
            return ''.join(traceback.format_exception(*err))[-4000:]

        def addSuccess(self, test):
            pass

        def addFailure(self, test, err):
            self.note(test, 'failed', self.text(err))

        def addError(self, test, err):
            self.note(test, 'error', self.text(err))

        def addSkip(self, test, reason):
            self.note(test, 'skipped', reason)

        def addExpectedFailure(self, test, err):
            self.note(test, 'passed')

        def addUnexpectedSuccess(self, test):
            self.note(test, 'failed', 'unexpected success')

        def addSubTest(self, test, subtest, err):
            if err is not None:
                bad = 'failed' if issubclass(err[0], test.failureException) else 'error'
                self.note(test, bad, str(subtest) + '\\n' + self.text(err))

        def addDuration(self, test, elapsed):
            pass

    suite = unittest.TestSuite(t for t in tests if short(t) in wanted)
    emit(ev='run')
    suite.run(Result())
    from test import support
    emit(ev='end', environment_altered=bool(support.environment_altered))


if __name__ == '__main__':
    main()
'''


# ----------------------------------------------------------------- set up

def ask(python, code, env):
    return subprocess.run([python, '-c', code], env=env, capture_output=True, text=True)


class Run:
    def __init__(self, a):
        self.a = a
        self.tmp = tempfile.mkdtemp(prefix='mpconf-')
        self.token = uuid.uuid4().hex
        env = dict(os.environ)
        for k in ('PYTHONDONTWRITEBYTECODE', 'PYTHONSAFEPATH'):
            env.pop(k, None)
        paths = [self.tmp] + [os.path.abspath(p) for p in a.path]
        if a.how == 'alias' and a.module != 'multiprocessing':
            paths.insert(0, os.path.join(HERE, 'substitute'))
            env['MP_SUBSTITUTE'] = a.module
        self.plain_env = dict(env, PYTHONPATH=os.pathsep.join(
            [os.path.abspath(p) for p in a.path]
            + [p for p in env.get('PYTHONPATH', '').split(os.pathsep) if p]))
        self.plain_env.pop('MP_SUBSTITUTE', None)
        env['PYTHONPATH'] = os.pathsep.join(
            paths + [p for p in env.get('PYTHONPATH', '').split(os.pathsep) if p])
        env[TOKEN_VAR] = self.token
        self.env = env
        self.n = 0

    # -- the temporary package

    def find_suite(self):
        s = self.a.suite
        if os.path.exists(s) and s.endswith('.py'):
            return os.path.abspath(s)
        r = ask(self.a.python, 'import importlib.util as u; print(u.find_spec(%r).origin)' % s,
                self.plain_env)
        if r.returncode:
            sys.exit('no suite %s in %s' % (s, self.a.python))
        return r.stdout.strip()

    def import_paths(self):
        r = ask(self.a.python, 'import importlib.util as u, os; '
                'print(os.path.dirname(os.path.dirname(u.find_spec(%r).origin)))' % self.a.module,
                self.plain_env)
        return [self.tmp] + ([] if self.a.module == 'multiprocessing' else r.stdout.split())

    def missing(self):
        if self.a.module == 'multiprocessing':
            return []
        code = ('import importlib, json, sys\n'
                'm = importlib.import_module(%r)\n'
                'bad = []\n'
                'for n in %r:\n'
                '    try: importlib.import_module(%r + "." + n)\n'
                '    except ModuleNotFoundError as e:\n'
                '        if not (e.name or "").startswith(%r): raise\n'
                '        bad.append(n)\n'
                'print(json.dumps(bad))' % (self.a.module, STD_SUBMODULES,
                                            self.a.module, self.a.module))
        r = ask(self.a.python, code, self.plain_env)
        if r.returncode:
            sys.exit('cannot import %s:\n%s' % (self.a.module, r.stderr))
        return json.loads(r.stdout.splitlines()[-1])

    def rewrite(self, text):
        text = re.sub(r'\btest\.(_test_multiprocessing|mp_preload|mp_fork_bomb|'
                      r'test_multiprocessing_\w+)\b', PKG + r'.\1', text)
        text = re.sub(r'\bfrom test import (mp_preload|mp_fork_bomb)\b',
                      'from ' + PKG + r' import \1', text)
        if self.a.how == 'rewrite':
            text = re.sub(r'(?<![\w.])multiprocessing\b(?!\.py)', self.a.module, text)
            # a message, not a name: either word will do (it is matched as a regex)
            text = text.replace('running %s pool' % self.a.module,
                                'running (?:multiprocessing|%s) pool' % self.a.module)
            if '.' in self.a.module:
                sys.exit('--module must be a top-level name')
        return text

    def build(self):
        self.suite_file = self.find_suite()
        self.fallback = self.missing() if not self.a.no_fallback else []
        pkg = os.path.join(self.tmp, PKG)
        os.mkdir(pkg)
        self.suite = os.path.splitext(os.path.basename(self.suite_file))[0]

        def write(name, text):
            with open(os.path.join(pkg, name), 'w', encoding='utf-8') as f:
                f.write(text)
        write('__init__.py', '')
        write('_prelude.py', PRELUDE.format(
            target=self.a.module, foreign=self.a.suite.endswith('.py'),
            fallback=self.fallback if self.a.how == 'rewrite' else []))
        folder = os.path.dirname(self.suite_file)
        for name in os.listdir(folder):
            if name.startswith('mp_') and name.endswith('.py'):
                with open(os.path.join(folder, name), encoding='utf-8') as f:
                    write(name, self.rewrite(f.read()))
        text = self.rewrite(open(self.suite_file, encoding='utf-8').read())
        # a program that the suite runs with -E -S finds its imports no other way
        text = text.replace("'from %s._test_multiprocessing import TestFlags; '" % PKG,
                            "'__import__(\"sys\").path[:0] = %s; from %s._test_multiprocessing "
                            "import TestFlags; '" % (json.dumps(self.import_paths()), PKG))
        text = text.replace("'-E', '-c'", "'-c'")     # -E would hide PYTHONPATH
        first, nl, rest = text.partition('\n')
        if first.strip().startswith('#') or not first.strip():
            text = 'import %s._prelude%s%s' % (PKG, nl, rest)     # same line numbers
        elif '"""' not in first and "'''" not in first:
            text = 'import %s._prelude; %s%s%s' % (PKG, first, nl, rest)
        write(self.suite + '.py', text)
        for m in {'fork', 'spawn', 'forkserver', self.method_name()}:
            write('test_multiprocessing_%s.py' % m,
                  WRAPPER.format(pkg=PKG, suite=self.suite, method=m))
        write('_worker.py', WORKER.format(pkg=PKG, suite=self.suite))

    def method_name(self):
        if self.a.method != 'default':
            return self.a.method
        if not hasattr(self, '_default'):
            r = ask(self.a.python, 'import %s as m; print(m.get_all_start_methods()[0])'
                    % self.a.module, self.plain_env)
            if r.returncode:
                sys.exit(r.stderr)
            self._default = r.stdout.split()[-1]
        return self._default

    # -- running

    def mine(self):
        """Live processes of this run's current worker, by the token in their environment."""
        want = ('%s=%s' % (TOKEN_VAR, self.env[TOKEN_VAR])).encode()
        out = []
        for d in os.listdir('/proc'):
            if d.isdigit() and int(d) != os.getpid():
                try:
                    with open('/proc/%s/environ' % d, 'rb') as f:
                        if want in f.read().split(b'\0'):
                            out.append(int(d))
                except OSError:
                    pass
        return out

    def kill_mine(self):
        """Kill what is left; resource trackers get a moment, to unlink what the killed held."""
        for n in range(40):
            pids = self.mine()
            if not pids:
                return
            for pid in pids:
                try:
                    with open('/proc/%d/cmdline' % pid, 'rb') as f:
                        tracker = b'resource_tracker' in f.read()
                    if not tracker or n >= 20:
                        os.kill(pid, signal.SIGKILL)
                except OSError:
                    pass
            time.sleep(0.05)

    def worker(self, limit, **spec):
        """Yield (event) dicts; ('timeout'|'died', ...) is put at the end as {'ev': ...}."""
        self.n += 1
        self.env[TOKEN_VAR] = '%s-%d' % (self.token, self.n)
        work = os.path.join(self.tmp, 'run%d' % self.n)
        os.mkdir(work)
        cwd = os.path.join(work, 'cwd')
        os.mkdir(cwd)
        tmpd = os.path.join(work, 't')     # short: AF_UNIX paths are built in it
        os.mkdir(tmpd)
        events, errs = os.path.join(work, 'events'), os.path.join(work, 'err')
        open(events, 'w').close()
        spec.update(events=events, limit=limit, alias=self.a.how == 'alias',
                    method=self.a.method if spec['what'] == 'probe' else self.method_name(),
                    wrapper='test_multiprocessing_' + self.method_name())
        sf = os.path.join(work, 'spec')
        with open(sf, 'w') as f:
            json.dump(spec, f)
        env = dict(self.env, TMPDIR=tmpd)
        with open(errs, 'wb') as ef:
            p = subprocess.Popen([self.a.python, '-m', PKG + '._worker', sf], cwd=cwd, env=env,
                                 stdin=subprocess.DEVNULL, stdout=ef, stderr=ef,
                                 start_new_session=True)
        evs, pos, last, buf = [], 0, time.monotonic(), b''
        end = None
        with open(events, 'rb') as f:
            while True:
                chunk = f.read()
                if chunk:
                    buf += chunk
                    *lines, buf = buf.split(b'\n')
                    evs += [json.loads(x) for x in lines if x]
                    last = time.monotonic()
                    continue
                if p.poll() is not None:
                    if f.read(1):
                        f.seek(-1, 1)
                        continue
                    break
                if time.monotonic() - last > limit:
                    end = 'timeout'
                    break
                time.sleep(0.02)
        leaked = 0
        if end is None:
            for _ in range(40):            # trackers and servers end soon after
                left = self.mine()
                if not left:
                    break
                time.sleep(0.05)
            leaked = len(left)
        else:
            p.kill()
        self.kill_mine()
        p.wait()
        err = open(errs, 'rb').read().decode('utf-8', 'replace')
        evs.append({'ev': 'gone', 'timeout': end == 'timeout', 'rc': p.returncode,
                    'leaked': leaked, 'err': err})
        if not self.a.keep:
            shutil.rmtree(work, ignore_errors=True)
        return evs

    def run_class(self, cls, tests, results, notes):
        left = list(tests)
        limit = self.a.timeout
        while left:
            evs = self.worker(limit, what='run', tests=left)
            gone = evs[-1]
            running, fixture, began = None, None, False
            for e in evs:
                if e['ev'] == 'start':
                    running, began = e['test'], True
                elif e['ev'] == 'result':
                    results[e['test']] = {k: e[k] for k in ('status', 'dt', 'msg')}
                    running = None
                elif e['ev'] == 'fixture':
                    fixture = e
                elif e['ev'] == 'end' and e['environment_altered']:
                    notes['environment_altered'].append(cls)
            tail = gone['err'][-3000:]
            if running:
                why = 'timeout' if gone['timeout'] else 'error'
                results[running] = {'status': why, 'dt': limit if gone['timeout'] else 0.0,
                                    'msg': 'still running after %gs' % limit if gone['timeout']
                                    else 'the test process ended: exit status %s' % gone['rc'],
                                    'stderr': tail}
            elif gone['timeout'] and began and not [t for t in left if t not in results]:
                notes['fixture'].append('%s: hung after its last test' % cls)
            elif fixture and fixture['status'] != 'skipped' and \
                    not [t for t in left if t not in results]:
                notes['fixture'].append('%s: %s\n%s' % (cls, fixture['id'], fixture['msg']))
            if gone['leaked']:
                notes['leaked'].append('%s: %d process(es) outlived the class'
                                       % (cls, gone['leaked']))
            for t in left:                 # what a failing test printed helps to read it
                if results.get(t, {}).get('status') in ('failed', 'error') and len(left) == 1:
                    results[t].setdefault('stderr', tail)
            for word in ('leaked semaphore', 'leaked shared_memory', 'leaked_'):
                if word in gone['err']:
                    notes['tracker'].append(cls)
                    break
            before, left = left, [t for t in left if t not in results]
            if len(left) == len(before):   # nothing came out: fixture, import, crash
                if gone['timeout']:
                    st, msg = 'timeout', 'hung before any test began'
                elif fixture:
                    st = 'skipped' if fixture['status'] == 'skipped' else 'error'
                    msg = fixture['id'] + ': ' + fixture['msg']
                else:
                    st, msg = 'error', 'no test began (exit status %s)' % gone['rc']
                for t in left:
                    results[t] = {'status': st, 'dt': 0.0, 'msg': msg, 'stderr': tail}
                left = []


def load_private(path):
    out = []
    if path and os.path.exists(path):
        for line in open(path, encoding='utf-8'):
            line = line.split('#', 1)[0].strip() if line.lstrip().startswith('#') else line.strip()
            if line:
                pat, _, reason = line.partition('|')
                out.append((pat.strip(), reason.strip()))
    return out


def private_reason(test, table):
    for pat, reason in table:
        if fnmatch.fnmatchcase(test, pat):
            return reason
    return None


def main():
    ap = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    ap.add_argument('--module', default='procession')
    ap.add_argument('--method', default='default',
                    help="fork, spawn, forkserver, any other the module has, or default: "
                         "the first of its get_all_start_methods()")
    ap.add_argument('-k', action='append', default=[], metavar='PATTERN',
                    help='keep tests whose Class.test holds this, or fits it as a glob')
    ap.add_argument('-x', action='append', default=[], metavar='PATTERN', help='leave these out')
    ap.add_argument('--json', metavar='OUT')
    ap.add_argument('--how', choices=('rewrite', 'alias'), default='rewrite')
    ap.add_argument('--path', action='append', default=[], help='put first on PYTHONPATH')
    ap.add_argument('--python', default=sys.executable, help='interpreter (and its suite) to use')
    ap.add_argument('--suite', default='test._test_multiprocessing',
                    help='another suite: a module of the test package, or a .py file')
    ap.add_argument('--timeout', type=float, default=60.0, help='seconds for one test')
    ap.add_argument('--no-fallback', action='store_true')
    ap.add_argument('--private', default=os.path.join(HERE, 'private_internals.txt'))
    ap.add_argument('--skip-private', action='store_true', help='do not run those at all')
    ap.add_argument('--baseline', help='a --json of another run: say what passed there, not here')
    ap.add_argument('--list', action='store_true')
    ap.add_argument('--probe', action='store_true', help='only show which module a child sees')
    ap.add_argument('-v', action='store_true')
    ap.add_argument('--keep', action='store_true', help='leave the temporary folder')
    a = ap.parse_args()

    # A shell's `&` starts us with SIGINT ignored, and children inherit that: tests that send it
    # would wait for ever. A handler becomes the default disposition at exec.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    run = Run(a)
    try:
        return go(a, run)
    finally:
        run.kill_mine()
        if a.keep:
            print('kept', run.tmp)
        else:
            shutil.rmtree(run.tmp, ignore_errors=True)


def go(a, run):
    run.build()
    t0 = time.monotonic()
    probe = run.worker(60, what='probe')
    seen = {e['ev']: e for e in probe}
    if 'module' not in seen or 'child' not in seen:
        print('PROBE FAILED (a plain child could not report):')
        print(seen['gone']['err'][-3000:])
    else:
        m, c = seen['module'], seen['child']
        print('module %s from %s; start methods %s; suite %s (%s, how=%s)' % (
            m['name'], m['file'], m['methods'], run.suite_file, run.method_name(), a.how))
        print('child: %s; its Connection: %s; sys.modules["multiprocessing"] there: %s' % (
            c['current_process_class'], c['conn_class'], c['sys.modules[multiprocessing]']))
    if run.fallback:
        print('NOT IN %s, taken from the standard library: %s'
              % (a.module, ', '.join(run.fallback)))
    if a.probe:
        return 0

    evs = run.worker(120, what='list')
    lst = [e for e in evs if e['ev'] == 'list']
    if not lst:
        print('THE SUITE DOES NOT IMPORT:\n' + evs[-1]['err'][-4000:])
        return 2

    if lst[0]['shimmed']:
        print("names that only the suite's fixtures need, put in for it: %s"
              % ', '.join(lst[0]['shimmed']))

    def fits(t, pats):
        return any(p in t or fnmatch.fnmatchcase(t, p) for p in pats)
    table = load_private(a.private)
    tests = [t for t in lst[0]['tests'] if (not a.k or fits(t, a.k)) and not fits(t, a.x)]
    if a.skip_private:
        tests = [t for t in tests if private_reason(t, table) is None]
    if a.list:
        print('\n'.join(tests))
        return 0
    classes = {}
    for t in tests:
        classes.setdefault(t.split('.')[0], []).append(t)

    results = {}
    notes = {'environment_altered': [], 'fixture': [], 'leaked': [], 'tracker': []}
    for cls, names in classes.items():
        c0 = time.monotonic()
        run.run_class(cls, names, results, notes)
        bad = [t for t in names if results[t]['status'] not in ('passed', 'skipped')]
        if a.v or bad:
            print('%-45s %3d tests %6.1fs %s' % (cls, len(names), time.monotonic() - c0, ''.join(
                '\n    %s %s%s' % (results[t]['status'].upper(), t,
                                   ' [private]' if private_reason(t, table) is not None else '')
                for t in bad)), flush=True)
    wall = time.monotonic() - t0

    by = {}
    for t in tests:
        by.setdefault(results[t]['status'], []).append(t)

    def line(sel):
        n = {s: len([t for t in by.get(s, []) if sel(t)])
             for s in ('passed', 'failed', 'error', 'skipped', 'timeout')}
        return n, '%(passed)d passed, %(failed)d failed, %(error)d errors, ' \
                  '%(skipped)d skipped, %(timeout)d timed out' % n
    priv = lambda t: private_reason(t, table) is not None
    print()
    for s in ('failed', 'error', 'timeout'):
        for t in by.get(s, []):
            msg = results[t]['msg'].strip().splitlines()
            print('%-7s %s%s\n        %s' % (s.upper(), t, ' [private: %s]' % private_reason(t, table)
                                             if priv(t) else '', msg[-1] if msg else ''))
    for k, head in (('fixture', 'fixture trouble'), ('leaked', 'processes left behind'),
                    ('environment_altered', 'suite says environment altered (dangling objects)'),
                    ('tracker', 'resource tracker reported leaks')):
        if notes[k]:
            print('%s: %s' % (head, '; '.join(notes[k])))
    counts, text = line(lambda t: True)
    pub, pub_text = line(lambda t: not priv(t))
    print('%s %s: public  %s' % (a.module, run.method_name(), pub_text))
    print('%s %s: private %s' % (a.module, run.method_name(), line(priv)[1]))
    print('%s %s: all     %s, of %d in %.0f s' % (a.module, run.method_name(), text,
                                                  len(tests), wall))
    if a.baseline:
        base = json.load(open(a.baseline))['tests']
        lost = [t for t in tests if base.get(t, {}).get('status') == 'passed'
                and results[t]['status'] != 'passed']
        gained = [t for t in tests if base.get(t, {}).get('status') not in (None, 'passed', 'skipped')
                  and results[t]['status'] == 'passed']
        absent = [t for t in base if t not in results]
        print('against the baseline: %d passed there and not here (%d of them private), '
              '%d the other way, %d not run here' % (
                  len(lost), len([t for t in lost if priv(t)]), len(gained), len(absent)))
        for t in lost:
            print('  LOST %s (%s)%s' % (t, results[t]['status'], ' [private]' if priv(t) else ''))
    if a.json:
        with open(a.json, 'w') as f:
            json.dump({'module': a.module, 'method': run.method_name(), 'how': a.how,
                       'suite': a.suite, 'fallback': run.fallback, 'wall_s': round(wall, 1),
                       'python': sys.version.split()[0] if a.python == sys.executable else a.python,
                       'counts': counts, 'counts_public': pub, 'notes': notes,
                       'probe': {k: v for k, v in seen.items() if k != 'gone'},
                       'tests': {t: results[t] for t in tests}}, f, indent=1)
    # the plain closing line: a skipped test counts as neither
    bad = len(tests) - counts['passed'] - counts['skipped']
    print('%d passed, %d failed, %d skipped' % (counts['passed'], bad, counts['skipped']))
    return 1 if pub['failed'] + pub['error'] + pub['timeout'] else 0


if __name__ == '__main__':
    sys.exit(main())
