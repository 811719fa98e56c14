import Kernels
import Models
import WeightFile

/// Why the library could not do what it was asked: one sentence, and the kind of fault that it is.
public struct AudioTokenError: Error, CustomStringConvertible, Sendable {
  /// The kinds, with the exit code that the commands give for each (those of `sysexits.h`).
  public enum Kind: Int32, Sendable {
    /// A setting that cannot be: change the command.
    case usage = 64
    /// A file whose content is not what it should be.
    case data = 65
    /// A file that is missing or cannot be read.
    case input = 66
    /// The system refuses memory or threads.
    case system = 71
    /// The output cannot be written.
    case output = 73
  }
  public let kind: Kind
  public let description: String

  package init(_ kind: Kind, _ description: String) {
    self.kind = kind
    self.description = description
  }
}

extension AudioTokenError {
  package init(_ error: WeightFileError) {
    switch error {
    case .unreadable: self.init(.input, error.description)
    case .output: self.init(.output, error.description)
    default: self.init(.data, error.description)
    }
  }
  init(_ error: KernelChoiceError) { self.init(.usage, error.description) }
  package init(_ error: WeightError) { self.init(.data, error.description) }
  init(_ error: TokenizerError) { self.init(.data, error.description) }
  init(_ error: ImageError) { self.init(.output, error.description) }
  init(_ error: OutputFileError) { self.init(.output, error.description) }
  init(_ error: SamplerError) {
    if case .steps = error { self.init(.usage, error.description) } else { self.init(.data, error.description) }
  }
  package init(_ error: AudioError) {
    switch error {
    case .missing, .directory, .notAFile, .unreadable: self.init(.input, error.description)
    case .start, .seconds, .startBeyondEnd: self.init(.usage, error.description)
    default: self.init(.data, error.description)
    }
  }
}

/// Runs `body` and turns its error into the library's.
func rendering<Result, Failure: Error>(
  _ convert: (Failure) -> AudioTokenError, _ body: () throws(Failure) -> Result
) throws(AudioTokenError) -> Result {
  do throws(Failure) { return try body() } catch { throw convert(error) }
}
