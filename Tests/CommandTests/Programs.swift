import Foundation
import Glibc

/// The programs as built beside the tests, or as installed in the folder that `AUDIOTOKEN_PROGRAMS` names.
enum Program: String {
  case audiotoken
  case convert = "audiotoken-convert"
  case randomCheckpoint = "audiotoken-random-checkpoint"

  var path: String { "\(Self.folder)/\(rawValue)" }

  /// Whether a processor is emulated for the programs, as `Toolchain/cross-test` says: they are many times slower then.
  static let isEmulated = ProcessInfo.processInfo.environment["AUDIOTOKEN_EMULATED"] != nil

  static let folder: String = {
    if let folder = ProcessInfo.processInfo.environment["AUDIOTOKEN_PROGRAMS"] { return folder }
    var path = [CChar](repeating: 0, count: 4096)
    let length = readlink("/proc/self/exe", &path, path.count)
    let tests = String(decoding: path.prefix(max(0, length)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
    return URL(fileURLWithPath: tests).deletingLastPathComponent().path
  }()
}

/// How a program ended.
struct Outcome {
  /// Nil if a signal ended it.
  let exitCode: Int32?
  let output: String
  let errors: String
  /// Of all its threads, in user mode and in the kernel: unlike the time that passed, no busy machine lengthens it much.
  let processorSeconds: Double
}

/// A program that runs, without input and with its outputs in files.
struct RunningProgram {
  private let process: pid_t
  private let folder: TemporaryFolder

  init(_ path: String, _ arguments: [String]) throws {
    folder = try TemporaryFolder()
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0)
    let write = O_WRONLY | O_CREAT | O_TRUNC
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, folder / "output", write, 0o600)
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, folder / "errors", write, 0o600)
    // The threads that run tests block signals, and programs inherit that.
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    var none = sigset_t()
    sigemptyset(&none)
    posix_spawnattr_setsigmask(&attributes, &none)
    posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
    var strings = ([path] + arguments).map { strdup($0) } + [nil]
    defer { for string in strings { free(string) } }
    var process = pid_t()
    let code = posix_spawn(&process, path, &actions, &attributes, &strings, environ)
    guard code == 0 else { throw TestError("\(path) cannot be run: \(String(cString: strerror(code)))") }
    self.process = process
  }

  var errors: String { (try? String(contentsOfFile: folder / "errors", encoding: .utf8)) ?? "" }

  /// Returns when the program has written `text` to standard error. Emulated, on a busy machine, that takes minutes.
  func wait(forError text: String) throws {
    let limit = ContinuousClock.now + .seconds(900)
    while true {
      let isLast = hasEnded || ContinuousClock.now > limit
      if errors.contains(text) { return }
      guard !isLast else { throw TestError("\"\(text)\" is not in: \(errors)") }
      usleep(1000)
    }
  }

  private var hasEnded: Bool {
    var what = siginfo_t()
    return waitid(P_PID, id_t(process), &what, WEXITED | WNOHANG | WNOWAIT) == 0 && what.si_signo == SIGCHLD
  }

  func send(_ signal: Int32) { kill(process, signal) }

  func wait() throws -> Outcome {
    var (status, usage) = (Int32(), rusage())
    while wait4(process, &status, 0, &usage) < 0 {
      guard errno == EINTR else { throw TestError("waiting failed: \(String(cString: strerror(errno)))") }
    }
    func seconds(_ time: timeval) -> Double { Double(time.tv_sec) + Double(time.tv_usec) / 1e6 }
    return Outcome(
      exitCode: status & 0x7F == 0 ? status >> 8 & 0xFF : nil,
      output: try String(contentsOfFile: folder / "output", encoding: .utf8), errors: errors,
      processorSeconds: seconds(usage.ru_utime) + seconds(usage.ru_stime))
  }
}

/// Runs a program to its end.
func run(_ program: Program, _ arguments: [String]) throws -> Outcome {
  try RunningProgram(program.path, arguments).wait()
}

/// Runs a program that has to succeed.
@discardableResult
func succeed(_ program: Program, _ arguments: [String]) throws -> Outcome {
  let outcome = try run(program, arguments)
  guard outcome.exitCode == 0 else {
    throw TestError("\(program.rawValue) \(arguments) ended with \(outcome.exitCode ?? -1): \(outcome.errors)")
  }
  return outcome
}

struct TestError: Error, CustomStringConvertible {
  let description: String
  init(_ description: String) { self.description = description }
}

/// A folder that goes away with the value.
final class TemporaryFolder {
  let path: String

  init() throws {
    let url = FileManager.default.temporaryDirectory.appendingPathComponent("audiotoken-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
    path = url.path
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }

  static func / (folder: TemporaryFolder, name: String) -> String { "\(folder.path)/\(name)" }

  func write(_ name: String, _ bytes: some Sequence<UInt8>) throws -> String {
    try Data(bytes).write(to: URL(fileURLWithPath: self / name))
    return self / name
  }
}

func bytes(_ path: String) throws -> Data { try Data(contentsOf: URL(fileURLWithPath: path)) }

/// The names in a folder, hidden ones too.
func names(_ folder: String) throws -> [String] { try FileManager.default.contentsOfDirectory(atPath: folder) }
