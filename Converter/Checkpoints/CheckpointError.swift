/// Why a checkpoint cannot be read. `description` is one sentence that names the file, what was found in it, what was
/// expected, and what to do.
package enum CheckpointError: Error, Equatable, Sendable {
  /// No file at the path.
  case missing(file: String)
  /// A folder where a file is expected.
  case folder(file: String)
  /// A file where a folder is expected.
  case notFolder(path: String)
  /// The system refuses to open or map the file.
  case unreadable(file: String, reason: String)
  /// The content is of another kind than `expected`.
  case wrongKind(file: String, found: FileKind, expected: String)
  /// The header describes more bytes than the file has.
  case truncated(file: String, expectedBytes: Int, foundBytes: Int)
  /// A zip archive that ends before its directory.
  case archiveCut(file: String)
  /// The structure contradicts its format.
  case damaged(file: String, what: String)
  /// An archive entry that is compressed or encrypted; torch stores its entries as they are.
  case compressed(file: String, entry: String)
  /// The format that torch wrote before 1.6.
  case legacyTorch(file: String)
  /// Written on a big-endian machine.
  case bigEndian(file: String)
  /// The part we need holds an object that only running code could make.
  case foreign(file: String, global: String, place: String)
  /// Elements of a type that is no plain number.
  case elementType(file: String, tensor: String, found: String)
  /// No such key in the top dictionary of the file, or nothing usable under it.
  case missingEntry(file: String, entry: String, found: String)
  /// No such tensor.
  case missingTensor(file: String, tensor: String, purpose: String)
  /// A tensor that has no place in the architectures known here.
  case unknownTensor(file: String, tensor: String, purpose: String)
  /// A tensor of another shape than its place wants.
  case shape(file: String, tensor: String, found: [Int], expected: String)
  /// A folder without a file or subfolder that it needs.
  case missingPart(folder: String, expected: String)
  /// A configuration value that is absent or of another type.
  case setting(file: String, key: String, found: String, expected: String)
}

extension CheckpointError: CustomStringConvertible {
  package var description: String {
    switch self {
    case .missing, .folder, .notFolder, .unreadable, .wrongKind, .truncated, .archiveCut: accessDescription
    case .damaged, .compressed, .legacyTorch, .bigEndian, .foreign, .elementType: formatDescription
    default: contentDescription
    }
  }

  private var accessDescription: String {
    switch self {
    case .missing(let file):
      "\(file): there is no such file; check the path."
    case .folder(let file):
      "\(file): found a folder where a file is expected; give the file inside it."
    case .notFolder(let path):
      "\(path): found a file where a folder is expected; give the folder that holds unet, vae and text_encoder."
    case .unreadable(let file, let reason):
      "\(file): cannot be read (\(reason)); check its permissions."
    case .wrongKind(let file, let found, let expected):
      "\(file): expected \(expected), found \(found.found.thing)"
        + (found.found.advice.isEmpty ? "." : "; \(found.found.advice).")
    case .truncated(let file, let expectedBytes, let foundBytes):
      "\(file): its header describes \(expectedBytes) bytes but the file has \(foundBytes); download or copy it again."
    case .archiveCut(let file):
      "\(file): the archive ends before its directory, so a part is missing; download or copy it again."
    default: ""
    }
  }

  private var formatDescription: String {
    switch self {
    case .damaged(let file, let what):
      "\(file): the file is damaged: \(what); download or copy it again."
    case .compressed(let file, let entry):
      "\(file): the archive entry \(entry) is compressed or encrypted where torch stores plain bytes;"
        + " load the file in PyTorch and save it again with torch.save."
    case .legacyTorch(let file):
      "\(file): found the format that torch wrote before 1.6, expected a torch zip archive;"
        + " in PyTorch run torch.save(torch.load(path, weights_only=True), new_path) and give the new file."
    case .bigEndian(let file):
      "\(file): was saved on a big-endian machine, expected little-endian data; save it again on a PC."
    case .foreign(let file, let global, let place):
      "\(file): \(place) needs the Python object \(global), which is never executed here;"
        + " expected tensors, numbers and strings: save only the model's state_dict."
    case .elementType(let file, let tensor, let found):
      "\(file): tensor \(tensor) has elements of type \(found), expected plain floats or integers;"
        + " convert it to float32 in PyTorch and save it again."
    default: ""
    }
  }

  private var contentDescription: String {
    switch self {
    case .missingEntry(let file, let entry, let found):
      "\(file): expected \(entry), found \(found); check that this is the right checkpoint."
    case .missingTensor(let file, let tensor, let purpose):
      "\(file): there is no tensor \(tensor), which \(purpose) needs; check that this is the right checkpoint."
    case .unknownTensor(let file, let tensor, let purpose):
      "\(file): tensor \(tensor) has no place in \(purpose); only Stable Diffusion 1.x and 2.x can be converted."
    case .shape(let file, let tensor, let found, let expected):
      "\(file): tensor \(tensor) has shape \(found), expected \(expected); check that this is the right checkpoint."
    case .missingPart(let folder, let expected):
      "\(folder): expected \(expected), found none; download the whole model folder."
    case .setting(let file, let key, let found, let expected):
      "\(file): \"\(key)\" is \(found), expected \(expected); restore the value that the model was published with."
    default: ""
    }
  }
}
