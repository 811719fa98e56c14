import WeightFile

/// Why a random checkpoint cannot be written. `description` is the sentence for the user.
package enum RandomCheckpointError: Error, Sendable {
  case unreadable(file: String, reason: String)
  case layout(file: String, reason: String)
  case merges(file: String, expected: Int, found: Int)
  /// Computed bytes that differ from those the layout was made with.
  case checksum(file: String, what: String, expected: UInt32, found: UInt32)
  case folder(path: String, reason: String)
  case output(OutputFileError)
}

extension RandomCheckpointError: CustomStringConvertible {
  package var description: String {
    switch self {
    case .unreadable(let file, let reason):
      "\(file) cannot be read (\(reason)); give the path of an existing file."
    case .layout(let file, let reason):
      "\(file) is no checkpoint layout: \(reason); make it again with make_layout.py."
    case .merges(let file, let expected, let found):
      "\(file) holds \(found) byte-pair merges where CLIP's tokenizer has \(expected); give CLIP's merges.txt."
    case .checksum(let file, let what, let expected, let found):
      "\(what) of \(file) has CRC-32 \(found) where the layout states \(expected); make the layout again with make_layout.py."
    case .folder(let path, let reason):
      "The folder \(path) cannot be made (\(reason)); give a folder that you may write to."
    case .output(let error): error.description
    }
  }
}
